--! keys: session, events, ids, index, user
--! read: after, since, last, refresh, session_ttl, user_ttl, app_ttl, most, harmless
--! uses events, snapshot
-- Reads a session with its scopes and a window of its events.
--
-- KEYS   then app state (absent where it lives on another node)
-- ARGV   `after`, `since` and `last` are the window (lib/snapshot.lua), `refresh` is '1' to move expiry, `most` and `harmless`
--        what one read may return (lib/events.lua), or ''
-- Returns {echo, 'found', snapshot}, {echo, 'missing'} or {echo, 'large', number of events, bytes or more}

local app = KEYS[6]
local view, count, size =
  snapshot(session, events, user, app, tonumber(after), since, last, tonumber(most), tonumber(harmless))
if not view and redis.call('EXISTS', session) == 1 then
  return { echo, 'large', count, size }
end
if not view or #view[1] == 0 then
  return { echo, 'missing' }
end
if refresh == '1' then
  --! uses prolong
  prolong_session(tonumber(session_ttl), session, events, ids, index, redis.call('HGET', session, 'past'))
  prolong(tonumber(user_ttl), user)
  if app then
    prolong(tonumber(app_ttl), app)
  end
end
return { echo, 'found', view }
