--! uses session_expiry, scope_expiry, changes, events, snapshot, once
-- Makes a session, or finds the one that is there.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, 5 user state, 6 calls run lately, 7 app state (absent where it lives on another node)
-- ARGV   1 echo, 2 the creator's token, 3 '1' to take a session that is there, 4 session id,
--        5 session ttl, 6 user ttl, 7 app ttl, 8 '1' to move expiry when found,
--        9 after, 10 since, 11 last, 12 most, 13 harmless or '': the window of events (lib/snapshot.lua), then the changes
-- Returns {echo, 'created' also by this token before, or 'found', snapshot, oldest ids of the index or none},
--        {echo, 'exists'}, {echo, 'gone'} if this token made it and somebody has deleted it since,
--        {echo, 'large', number of events, bytes or more} or {echo, 'foreign', version found or ''}
--
-- Now and then a creation also returns the oldest entries of the index, for the caller to prune those that
-- have expired (prune.lua): so that the index of a user who never lists stays as small as it should.

local session, events, ids, index, user, calls, app = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local echo, token = ARGV[1], ARGV[2]
local ttl, user_ttl, app_ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local function read()
  local most, harmless = tonumber(ARGV[12]), tonumber(ARGV[13])
  return snapshot(session, events, user, app, tonumber(ARGV[9]), ARGV[10], ARGV[11], most, harmless)
end

if redis.call('EXISTS', session) == 1 then
  local meta = redis.call('HMGET', session, 'v', 'token', 'ttl')
  if meta[1] ~= '1' then
    return { echo, 'foreign', meta[1] or '' }
  end
  if meta[2] ~= token and ARGV[3] ~= '1' then
    return { echo, 'exists' }
  end
  local view, count, size = read()
  if not view then
    return { echo, 'large', count, size }
  end
  if meta[2] == token then
    redis.call('HSET', session, 'v', 1) -- as a repeat must: see lib/once.lua
    return { echo, 'created', view, {} }
  end
  if ARGV[8] == '1' then
    move_session_expiry(session, events, ids, index, ttl, meta[3])
    move_scope_expiry(user, user_ttl)
    if app then
      move_scope_expiry(app, app_ttl)
    end
  end
  return { echo, 'found', view, {} }
end

if ran_before(calls, token, lately) then
  return { echo, 'gone' }
end
-- These two fail before anything is written if they hold another type of data.
redis.call('HLEN', user)
if app then
  redis.call('HLEN', app)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', index, now, ARGV[4])
-- Left over if the server evicted the session's hash alone; a new session must not inherit them.
redis.call('UNLINK', events, ids)
redis.call('HSET', session, 'v', 1, 'created', now, 'updated', now, 'revision', 1, 'count', 0, 'last', 0, 'token', token)

local changed_user, changed_app = false, false
for i = 14, #ARGV, 3 do
  local scope = string.lower(ARGV[i])
  changed_user = changed_user or scope == 'u'
  changed_app = changed_app or scope == 'a'
end
apply_changes(14, (#ARGV - 13) / 3, session, user, app)
if changed_user then
  move_scope_expiry(user, user_ttl)
end
if changed_app then
  move_scope_expiry(app, app_ttl)
end

local oldest = {}
if ttl > 0 then
  move_session_expiry(session, events, ids, index, ttl, false)
  if redis.call('ZCARD', index) % 64 == 0 then
    oldest = redis.call('ZRANGE', index, 0, 127)
  end
else
  -- This session lives for ever, so the index does, whatever another configuration had set.
  redis.call('PERSIST', index)
end
remember(calls, token, lately)
return { echo, 'created', read(), oldest }
