-- Moves the expiry of an application's or a user's state. A time to live is in milliseconds; 0 is for ever.
local function move_scope_expiry(key, ttl)
  if ttl > 0 then
    redis.call('PEXPIRE', key, ttl)
  else
    redis.call('PERSIST', key)
  end
end
