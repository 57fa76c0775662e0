--! keys: state
--! read: refresh, ttl
--! uses scope_expiry
-- Reads the state of an application or of a user.
--
-- ARGV   `refresh` is '1' to move expiry
-- Returns {echo, 'found', state}

if refresh == '1' then
  move_scope_expiry(state, tonumber(ttl))
end
return { echo, 'found', redis.call('HGETALL', state) }
