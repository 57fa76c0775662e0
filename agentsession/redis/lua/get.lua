--! uses snapshot
-- Reads a session with its scopes and a window of its events.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index, 5 user state, 6 app state (absent where it lives on another node)
-- ARGV   1 echo, 2 after, 3 since, 4 last: the window (lib/snapshot.lua), 5 '1' to move expiry,
--        6 session ttl, 7 user ttl, 8 app ttl
-- Returns {echo, 'found', snapshot} or {echo, 'missing'}

local session, events, user, app = KEYS[1], KEYS[2], KEYS[5], KEYS[6]
local view = snapshot(session, events, user, app, tonumber(ARGV[2]), ARGV[3], ARGV[4])
if #view[1] == 0 then
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
