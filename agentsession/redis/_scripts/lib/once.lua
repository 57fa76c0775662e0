-- Calls that were run: a call may be sent again when its reply is lost, and a copy of it may arrive late. Neither may do
-- anything again, nor anything at all once the call is over, whatever it did the first time, nothing included. So each is
-- remembered until no copy of it can be run any more, which is its deadline. An append needs none of this (append.lua).
--
-- They are kept for `margin` microseconds more: a server whose clock is ahead refuses copies that are not late by the clock
-- of the one that it took over from, and by what is remembered it can be told whether one of them was run.

local margin = 60000000

local function remember(calls, id, deadline, now)
  local kept = deadline + margin
  -- This comes first, so that a server that is out of memory refuses what comes after it as well.
  redis.call('ZADD', calls, kept, id)
  redis.call('ZREMRANGEBYSCORE', calls, '-inf', string.format('(%d', now))
  -- This is a write in any case, also where the call is remembered already: WAIT speaks of what its own connection has
  -- written, and on one that has written nothing it would acknowledge what no replica has.
  local left = math.max(math.ceil((kept - now) / 1000), redis.call('PTTL', calls))
  redis.call('PEXPIRE', calls, left)
end

-- A call that found nothing to do is remembered with a mark, so that a repeat is answered as it was.
local function remember_refused(calls, id, deadline, now)
  remember(calls, '!' .. id, deadline, now)
end

-- Returns 'ran', 'refused', 'late' or nil, and the present. A call that is known is remembered anew.
local function standing(calls, id, deadline)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  if redis.call('ZSCORE', calls, id) then
    remember(calls, id, deadline, now)
    return 'ran', now
  elseif redis.call('ZSCORE', calls, '!' .. id) then
    remember_refused(calls, id, deadline, now)
    return 'refused', now
  end
  return now > deadline and 'late' or nil, now
end
