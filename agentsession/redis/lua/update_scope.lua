--! uses expiry, changes
-- Changes the state of an application or of a user.
--
-- KEYS   1 the state
-- ARGV   1 echo, 2 ttl, then the changes, all of scope s
-- Returns {echo, 'ok'}

apply_changes(3, (#ARGV - 2) / 3, KEYS[1])
move_scope_expiry(KEYS[1], tonumber(ARGV[2]))
return { ARGV[1], 'ok' }
