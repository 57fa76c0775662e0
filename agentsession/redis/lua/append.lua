--! uses expiry, changes, once
-- Adds events to the end of a session's log and applies changes to state, or does nothing at all.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, then calls run lately if there are changes without an event, then
--        user state and app state as far as ARGV[9] names them
-- ARGV   1 echo, 2 expected revision or '', 3 event limit or 0, 4 trimmed ids to remember,
--        5 session ttl, 6 user ttl, 7 app ttl, 8 session id, 9 scopes changed: '', 'u', 'a' or 'ua',
--        10 number of changes without an event; if there are any, the call and these changes,
--        then for each event: id, time in microseconds, payload, number of changes, these changes
-- Returns {echo, 'ok', revision, last position, updated, created, position of each event}, {echo, 'missing'},
--        {echo, 'conflict', revision} or {echo, 'foreign', version found or ''}
--
-- Invariant: position = count - (length of events - 1 - rank), since scores only grow and trimming takes from the front.
-- Redis keeps what a script wrote before an error, so whatever could fail (a key of another type, no memory, no
-- rights) is touched before the first write, or undone. An out-of-memory error comes at the first write or never.

--
-- Numbers go to commands as text made by string.format: Redis would print a Lua number with 17 digits, which takes
-- longer than some of the commands.

local session, events, ids, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local echo, expected, scopes = ARGV[1], ARGV[2], ARGV[9]
local call, format = redis.call, string.format

local loose = tonumber(ARGV[10])
local calls, this
local loose_at = 11
if loose > 0 then
  calls, this, loose_at = KEYS[5], ARGV[11], 12
end
local user, app
if scopes ~= '' then
  if scopes ~= 'a' then
    user = calls and KEYS[6] or KEYS[5]
    call('HLEN', user)
  end
  if scopes ~= 'u' then
    app = KEYS[#KEYS]
    call('HLEN', app)
  end
end

local meta = call('HMGET', session, 'v', 'revision', 'count', 'last', 'updated', 'created', 'ttl')
if meta[1] ~= '1' then
  if not meta[1] and call('EXISTS', session) == 0 then
    return { echo, 'missing' }
  end
  return { echo, 'foreign', meta[1] or '' }
end
local revision, count, last = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])
local first, argc = loose_at + 3 * loose, #ARGV

-- A repeat is answered as the first time was, whatever the revision is by now.
if expected ~= '' and expected ~= meta[2] then
  local at = first
  while at <= argc do
    if not call('ZSCORE', ids, ARGV[at]) then
      return { echo, 'conflict', revision }
    end
    at = at + 4 + 3 * tonumber(ARGV[at + 3])
  end
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { echo, 'ok', revision, count, tonumber(meta[5]), tonumber(meta[6]) }
local fresh = {}
if calls and ran_before(calls, this) then
  return reply
end

local function undo(failure)
  for _, entry in ipairs(fresh) do
    redis.pcall('ZREM', ids, ARGV[entry])
    redis.pcall('ZREM', events, ARGV[entry + 2])
  end
  return failure
end

local at = first
while at <= argc do
  if call('ZADD', ids, 'NX', format('%d', count + 1), ARGV[at]) == 1 then
    fresh[#fresh + 1] = at
    local score = tonumber(ARGV[at + 1])
    if score > now then
      score = now
    end
    if score <= last then
      score = last + 1
    end
    local added = redis.pcall('ZADD', events, format('%d', score), ARGV[at + 2])
    if type(added) == 'table' then
      return undo(added)
    end
    count, last = count + 1, score
    reply[#reply + 1] = count
  else
    reply[#reply + 1] = tonumber(call('ZSCORE', ids, ARGV[at]))
  end
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end
if #fresh == 0 and loose == 0 then
  return reply
end

local present = format('%d', now)
local indexed = redis.pcall('ZADD', index, present, ARGV[8])
if type(indexed) == 'table' then
  return undo(indexed)
end
revision = revision + 1
call(
  'HSET', session, 'revision', format('%d', revision), 'count', format('%d', count),
  'last', format('%d', last), 'updated', present
)
reply[3], reply[4], reply[5] = revision, count, now

apply_changes(loose_at, loose, session, user, app)
for _, entry in ipairs(fresh) do
  local changes = tonumber(ARGV[entry + 3])
  if changes > 0 then
    apply_changes(entry + 4, changes, session, user, app)
  end
end
if user then
  move_scope_expiry(user, tonumber(ARGV[6]))
end
if app then
  move_scope_expiry(app, tonumber(ARGV[7]))
end

local limit = tonumber(ARGV[3])
if limit > 0 and count > limit then
  call('ZREMRANGEBYRANK', events, 0, -limit - 1)
  -- The ids are trimmed now and then: how many more are remembered is nobody's concern.
  local remembered = limit + tonumber(ARGV[4])
  if count > remembered and (count % 64 == 0 or #fresh > 1) then
    call('ZREMRANGEBYRANK', ids, 0, -remembered - 1)
  end
end
local ttl = tonumber(ARGV[5])
if ttl > 0 or meta[7] then
  move_session_expiry(session, events, ids, index, ttl, meta[7])
end
if calls then
  remember(calls, this, lately)
end
return reply
