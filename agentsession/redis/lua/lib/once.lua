-- Calls that were run lately: a call may be repeated when its reply is lost, and a copy of it may arrive late.
-- Neither must undo what others have written since. An append needs none of this: the ids of its events tell.
--
-- A script asks before its first write and remembers when nothing can fail any more, so that one that fails is not remembered.
-- A thousand calls are more than any that are repeated or under way, and so are those of ten minutes.

local lately = 600000

-- For how long is in milliseconds; 0 is for ever.
local function remember(calls, call, life)
  local time = redis.call('TIME')
  redis.call('ZADD', calls, string.format('%d', time[1] * 1000000 + time[2]), call)
  redis.call('ZREMRANGEBYRANK', calls, 0, -1001)
  if life > 0 then
    redis.call('PEXPIRE', calls, life)
  else
    redis.call('PERSIST', calls)
  end
end

-- A call that ran is remembered anew, which is a write: WAIT speaks of what its own connection has written, and on a
-- connection that has written nothing it would acknowledge what no replica has.
local function ran_before(calls, call, life)
  if not redis.call('ZSCORE', calls, call) then
    return false
  end
  remember(calls, call, life)
  return true
end
