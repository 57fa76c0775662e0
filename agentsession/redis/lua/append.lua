-- Adds events to the end of a session's log and applies changes to state, or does nothing at all.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, then calls run lately if there are changes without an event, then user state
--        and app state as far as ARGV[9] names them
-- ARGV   1 echo, 2 expected revision or '', 3 and 4 the last rank to trim from events and from ids, counted from the
--        end, or '' without a limit, 5 session ttl, 6 user ttl, 7 app ttl, 8 session id,
--        9 scopes changed: '', 'u', 'a' or 'ua', 10 number of changes without an event, 0 if there are events; if there
--        are any, the call and these changes,
--        then for each event: id, time in microseconds, payload, number of changes, these changes
-- Returns {echo, 'ok', revision, last position, updated, created, position of each event}, {echo, 'missing'},
--        {echo, 'conflict', revision}, {echo, 'foreign', version found or ''} or {echo, 'damaged'}
--
-- Invariant: position = count - (length of events - 1 - rank), since scores only grow and trimming takes from the front.
-- Redis keeps what a script wrote before an error, so whatever could fail (a key of another type, no memory, no
-- rights) is touched before the first write, or undone. An out-of-memory error comes at the first write or never.
--
-- This script is most of what a busy server does, so it avoids what costs as much as a command: numbers go to commands
-- as text made once by string.format (Redis would print them with 17 digits), and functions are made only where needed.

local session, events, ids, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local echo, expected, scopes = ARGV[1], ARGV[2], ARGV[9]
local call, format = redis.call, string.format

local loose, loose_at = ARGV[10] + 0, 12
local user, app
if scopes ~= '' then
  if scopes ~= 'a' then
    user = KEYS[loose > 0 and 6 or 5]
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
local revision, before, last = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])
local updated, created = tonumber(meta[5]), tonumber(meta[6])
-- What is no number at all, not a whole one, or negative, was not written by us.
if not (revision and before and last and updated and created) or before % 1 ~= 0 or last % 1 ~= 0 or before < 0 then
  return { echo, 'damaged' }
end
local first, argc = loose > 0 and loose_at + 3 * loose or 11, #ARGV

-- A repeat is answered as the first time was, whatever the revision is by now.
if expected ~= '' and expected ~= meta[2] then
  local at = first
  while at <= argc do
    if not call('ZSCORE', ids, ARGV[at]) then
      return { echo, 'conflict', revision }
    end
    at = at + 4 + 3 * ARGV[at + 3]
  end
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local count, position, moment = before, meta[3], meta[4]
local reply = { echo, 'ok', revision, before, updated, created }
local size, changing, failure, kept = 6, loose > 0, false, 0

if loose > 0 then
  --! uses once
  if ran_before(KEYS[5], ARGV[11], lately) then
    return reply
  end
end

local at = first
while at <= argc do
  local next_position = format('%d', count + 1)
  size = size + 1
  if call('ZADD', ids, 'NX', next_position, ARGV[at]) == 1 then
    local score = ARGV[at + 1] + 0
    if score > now then
      score = now
    end
    if score <= last then
      score = last + 1
    end
    count, position, last, moment = count + 1, next_position, score, format('%d', score)
    reply[size] = count
    local added = redis.pcall('ZADD', events, 'NX', moment, ARGV[at + 2])
    if added ~= 1 then
      -- Not added means: it is in the log, and its id is lost. It is not this call's to take out.
      failure, kept = added == 0 and { echo, 'damaged' } or added, count
      break
    end
    changing = changing or ARGV[at + 3] ~= '0'
  else
    reply[size] = tonumber(call('ZSCORE', ids, ARGV[at]))
  end
  at = at + 4 + 3 * ARGV[at + 3]
end
if count == before and loose == 0 then
  if size > 6 then
    -- A repeat writes too, though nothing new: see lib/once.lua.
    call('HSET', session, 'v', '1')
  end
  return reply
end

local present = format('%d', now)
if not failure then
  local indexed = redis.pcall('ZADD', index, present, ARGV[8])
  failure = type(indexed) == 'table' and indexed
end
if failure or changing then
  --! uses changes, scope_expiry
  -- Walks over the events that were stored now. They have the positions after `before` in their order, which tells them
  -- from repeats, also from those of one in this very batch.
  local stored, number = before, 6
  at = first
  while stored < count do
    number = number + 1
    if reply[number] == stored + 1 then
      stored = stored + 1
      if failure then
        redis.pcall('ZREM', ids, ARGV[at])
        if stored ~= kept then
          redis.pcall('ZREM', events, ARGV[at + 2])
        end
      else
        apply_changes(at + 4, ARGV[at + 3] + 0, session, user, app)
      end
    end
    at = at + 4 + 3 * ARGV[at + 3]
  end
  if failure then
    return failure
  end
  if loose > 0 then
    --! uses once
    apply_changes(loose_at, loose, session, user, app)
    remember(KEYS[5], ARGV[11], lately)
  end
  if user then
    move_scope_expiry(user, tonumber(ARGV[6]))
  end
  if app then
    move_scope_expiry(app, tonumber(ARGV[7]))
  end
end

revision = revision + 1
call('HSET', session, 'revision', format('%d', revision), 'count', position, 'last', moment, 'updated', present)
reply[3], reply[4], reply[5] = revision, count, now

if ARGV[3] ~= '' and count >= -ARGV[3] then
  call('ZREMRANGEBYRANK', events, '0', ARGV[3])
  -- The ids are trimmed now and then: how many more are remembered is nobody's concern.
  if count >= -ARGV[4] and (count % 64 == 0 or count > before + 1) then
    call('ZREMRANGEBYRANK', ids, '0', ARGV[4])
  end
end
if ARGV[5] ~= '0' or meta[7] then
  --! uses session_expiry
  move_session_expiry(session, events, ids, index, tonumber(ARGV[5]), meta[7])
end
return reply
