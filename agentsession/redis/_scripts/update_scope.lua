--! keys: state, calls
--! write: id, user_id, ttl
--! uses once, scope_expiry, changes
-- Changes the state of an application or of a user.
--
-- KEYS   then the application's users and its calls, if it is a user's and they are on this node
-- ARGV   `user_id` is whose state it is, or ''; then the changes, all of scope s (lib/changes.lua)
-- Returns {echo, 'ok', now, 1 if there is any state left or 0} or {echo, 'late', now}

local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now, 1 }
end
local users = KEYS[3]
if users then
  redis.call('ZCARD', users)
end
redis.call('HLEN', state) -- fails before anything is written if it holds another type of data
remember(calls, id, deadline, now)
apply_changes(first, (#ARGV - first + 1) / 3, state)
move_scope_expiry(state, tonumber(ttl))
if users and redis.call('EXISTS', state) == 1 then
  --! uses enlist
  enlist(users, KEYS[4], user_id, now, tonumber(ttl), tonumber(ttl))
end
return { echo, 'ok', now, redis.call('EXISTS', state) }
