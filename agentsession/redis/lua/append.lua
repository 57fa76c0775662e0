--! uses expiry, changes
-- Adds events to the end of a session's log and applies changes to state, or does nothing at all.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, then user state and app state as far as ARGV[9] names them
-- ARGV   1 echo, 2 expected revision or '', 3 event limit or 0, 4 trimmed ids to remember,
--        5 session ttl, 6 user ttl, 7 app ttl, 8 session id, 9 scopes changed: '', 'u', 'a' or 'ua',
--        10 number of changes without an event, these changes,
--        then for each event: id, time in microseconds, payload, number of changes, these changes
-- Returns {echo, 'ok', revision, last position, updated, created, position of each event}, {echo, 'missing'},
--        {echo, 'conflict', revision} or {echo, 'foreign', version found or ''}
--
-- Invariant: position = count - (length of events - 1 - rank), since scores only grow and trimming takes from the front.
-- Redis keeps what a script wrote before an error, so whatever could fail (a key of another type, no memory, no
-- rights) is touched before the first write, or undone. An out-of-memory error comes at the first write or never.

local session, events, ids, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local echo, expected, scopes = ARGV[1], ARGV[2], ARGV[9]
local user, app
if scopes ~= '' then
  if scopes ~= 'a' then
    user = KEYS[5]
    redis.call('HLEN', user)
  end
  if scopes ~= 'u' then
    app = KEYS[#KEYS]
    redis.call('HLEN', app)
  end
end

local meta = redis.call('HMGET', session, 'v', 'revision', 'count', 'last', 'updated', 'ttl', 'created')
if meta[1] ~= '1' then
  if not meta[1] and redis.call('EXISTS', session) == 0 then
    return { echo, 'missing' }
  end
  return { echo, 'foreign', meta[1] or '' }
end
local revision, count, last = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])

local loose = tonumber(ARGV[10])
local entries = {}
local at = 11 + 3 * loose
while at <= #ARGV do
  entries[#entries + 1] = at
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end

-- A repeat is answered as the first time was, whatever the revision is by now.
if expected ~= '' and expected ~= meta[2] then
  for _, entry in ipairs(entries) do
    if not redis.call('ZSCORE', ids, ARGV[entry]) then
      return { echo, 'conflict', revision }
    end
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { echo, 'ok', revision, count, tonumber(meta[5]), tonumber(meta[7]) }
local fresh = {}

local function undo(failure)
  for _, entry in ipairs(fresh) do
    redis.pcall('ZREM', ids, ARGV[entry])
    redis.pcall('ZREM', events, ARGV[entry + 2])
  end
  return failure
end

for _, entry in ipairs(entries) do
  if redis.call('ZADD', ids, 'NX', count + 1, ARGV[entry]) == 1 then
    fresh[#fresh + 1] = entry
    last = math.max(math.min(tonumber(ARGV[entry + 1]), now), last + 1)
    local added = redis.pcall('ZADD', events, last, ARGV[entry + 2])
    if type(added) == 'table' then
      return undo(added)
    end
    count = count + 1
    reply[#reply + 1] = count
  else
    reply[#reply + 1] = tonumber(redis.call('ZSCORE', ids, ARGV[entry]))
  end
end
if #fresh == 0 and loose == 0 then
  return reply
end

local indexed = redis.pcall('ZADD', index, now, ARGV[8])
if type(indexed) == 'table' then
  return undo(indexed)
end
redis.call('HSET', session, 'revision', revision + 1, 'count', count, 'last', last, 'updated', now)
reply[3], reply[4], reply[5] = revision + 1, count, now

apply_changes(11, loose, session, user, app)
for _, entry in ipairs(fresh) do
  apply_changes(entry + 4, tonumber(ARGV[entry + 3]), session, user, app)
end
if user then
  move_scope_expiry(user, tonumber(ARGV[6]))
end
if app then
  move_scope_expiry(app, tonumber(ARGV[7]))
end

local limit = tonumber(ARGV[3])
if limit > 0 and count > limit then
  redis.call('ZREMRANGEBYRANK', events, 0, -limit - 1)
  local remembered = limit + tonumber(ARGV[4])
  if count > remembered then
    redis.call('ZREMRANGEBYRANK', ids, 0, -remembered - 1)
  end
end
move_session_expiry(session, events, ids, index, tonumber(ARGV[5]), meta[6])
return reply
