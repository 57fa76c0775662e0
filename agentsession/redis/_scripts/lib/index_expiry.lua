-- Gives an index that lives for ever an expiry, once no session in it does: that of the one that lives longest, at least
-- `ttl` milliseconds. Those that have expired are taken out in passing.
--
-- Which sessions live for ever is known by their own keys, all in this slot. Those that were written to longest ago come
-- first, since a session that was made without a time to live gets one when it is written to: so the search ends at the
-- first one mostly. After a thousand it is given up: a longer index goes when its sessions are listed.
--! uses session_name
local function move_index_expiry(index, ttl)
  if redis.call('PTTL', index) ~= -1 then
    return
  end
  local longest, at = ttl, 0
  while at < 1000 do
    local listed = redis.call('ZRANGE', index, at, at + 15)
    for i = 1, #listed do
      local left = redis.call('PTTL', session_name(index, listed[i]))
      if left == -1 then
        return
      elseif left == -2 then
        redis.call('ZREM', index, listed[i])
      else
        longest, at = math.max(longest, left), at + 1
      end
    end
    if #listed < 16 then
      redis.call('PEXPIRE', index, math.max(longest, 1))
      return
    end
  end
end
