--! keys: state
--! read: refresh, ttl
--! uses prolong
-- Reads the state of an application or of a user.
--
-- ARGV   `refresh` is '1' to move expiry
-- Returns {echo, 'found', state}

if refresh == '1' then
  prolong(tonumber(ttl), state)
end
return { echo, 'found', redis.call('HGETALL', state) }
