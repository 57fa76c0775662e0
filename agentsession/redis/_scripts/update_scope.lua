--! keys: state, calls
--! write: id, ttl
--! uses once, scope_expiry, changes
-- Changes the state of an application or of a user.
--
-- ARGV   then the changes, all of scope s (lib/changes.lua)
-- Returns {echo, 'ok', now} or {echo, 'late', now}

local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now }
end
redis.call('HLEN', state) -- fails before anything is written if it holds another type of data
remember(calls, id, deadline, now)
apply_changes(first, (#ARGV - first + 1) / 3, state)
move_scope_expiry(state, tonumber(ttl))
return { echo, 'ok', now }
