--! uses scope_expiry, changes, once
-- Changes the state of an application or of a user.
--
-- KEYS   1 the state, 2 calls run lately
-- ARGV   1 echo, 2 ttl, 3 the call, 4 how long to remember it, or 0, then the changes, all of scope s
-- Returns {echo, 'ok'}

local state, calls, ttl, this = KEYS[1], KEYS[2], tonumber(ARGV[2]), ARGV[3]
if ran_before(calls, this, tonumber(ARGV[4])) then
  return { ARGV[1], 'ok' }
end
apply_changes(5, (#ARGV - 4) / 3, state)
move_scope_expiry(state, ttl)
remember(calls, this, tonumber(ARGV[4]))
return { ARGV[1], 'ok' }
