-- Puts a user on the list of an application's users, where all have score 0 and so are in the order of their ids. The list lives
-- as long as what it was last written for, at least; each `ttl` is in milliseconds, 0 for ever. A list that is begun here is not
-- known to be complete, whatever was known of the one before (enlist.lua).
-- Returns some of the list now and then, for the caller to look which of them are gone (drop_users.lua).
local function enlist(users, calls, user_id, now, session_ttl, user_ttl)
  local new = redis.call('ZADD', users, 0, user_id)
  local count = new == 1 and redis.call('ZCARD', users) or 0
  local left = redis.call('PTTL', users)
  if count == 1 then
    redis.call('ZREM', calls, '=complete', '=empty')
  end
  if session_ttl == 0 or user_ttl == 0 then
    if left >= 0 then
      redis.call('PERSIST', users)
    end
  elseif count == 1 or (left >= 0 and left < math.max(session_ttl, user_ttl)) then
    redis.call('PEXPIRE', users, math.max(session_ttl, user_ttl))
  end
  if count > 0 and count % 64 == 0 then
    local at = now % (count - 63)
    return redis.call('ZRANGE', users, at, at + 63)
  end
  return {}
end
