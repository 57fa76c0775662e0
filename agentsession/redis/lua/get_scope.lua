--! uses scope_expiry
-- Reads the state of an application or of a user.
--
-- KEYS   1 the state
-- ARGV   1 echo, 2 '1' to move expiry, 3 ttl
-- Returns {echo, 'found', state}

if ARGV[2] == '1' then
  move_scope_expiry(KEYS[1], tonumber(ARGV[3]))
end
return { ARGV[1], 'found', redis.call('HGETALL', KEYS[1]) }
