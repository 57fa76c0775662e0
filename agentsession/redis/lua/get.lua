--! uses events, snapshot
-- Reads a session with its scopes and a window of its events.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, 5 user state, 6 app state (absent where it lives on another node)
-- ARGV   1 echo, 2 after, 3 since, 4 last: the window (lib/snapshot.lua), 5 '1' to move expiry,
--        6 session ttl, 7 user ttl, 8 app ttl, 9 most, 10 harmless: what one read may return, or nothing
-- Returns {echo, 'found', snapshot}, {echo, 'missing'} or {echo, 'large', number of events, bytes or more}

local session, events, user, app = KEYS[1], KEYS[2], KEYS[5], KEYS[6]
local most, harmless
if ARGV[9] then
  most, harmless = tonumber(ARGV[9]), tonumber(ARGV[10])
end
local view, count, size =
  snapshot(session, events, user, app, tonumber(ARGV[2]), ARGV[3], ARGV[4], most, harmless)
if not view and redis.call('EXISTS', session) == 1 then
  return { ARGV[1], 'large', count, size }
end
if not view or #view[1] == 0 then
  return { ARGV[1], 'missing' }
end
if ARGV[5] == '1' then
  --! uses session_expiry, scope_expiry
  move_session_expiry(session, events, KEYS[3], KEYS[4], tonumber(ARGV[6]), redis.call('HGET', session, 'ttl'))
  move_scope_expiry(user, tonumber(ARGV[7]))
  if app then
    move_scope_expiry(app, tonumber(ARGV[8]))
  end
end
return { ARGV[1], 'found', view }
