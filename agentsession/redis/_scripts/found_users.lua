--! keys: users, calls
--! write: id, count
--! uses once
-- Puts users on the list of an application's users who were found by their keys.
--
-- ARGV   `count` is how many were found in all, if these are the last of them and nobody was missed, or ''; then their ids
-- Returns {echo, 'ok', now} or {echo, 'late', now}
--
-- That a list is complete is known for an hour: what a failover, an eviction or a process that stood still has cost is found
-- again after that. It is known beside the list, by another word if there is nobody on it, so that a list which is gone is not
-- taken for an empty one. A list that is begun here lives for an hour, unless something is written for it.

local hour = 3600000
local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now }
end
local begun = redis.call('EXISTS', users) == 0
redis.call('ZCARD', users) -- fails before anything is written if it holds another type of data
remember(calls, id, deadline, now)
for i = first, #ARGV do
  redis.call('ZADD', users, 0, ARGV[i])
end
if begun then
  redis.call('PEXPIRE', users, hour)
end
if count ~= '' and redis.call('ZCARD', users) >= tonumber(count) then
  redis.call('ZREM', calls, '=complete', '=empty')
  redis.call('ZADD', calls, now + hour * 1000, redis.call('ZCARD', users) > 0 and '=complete' or '=empty')
  redis.call('PEXPIRE', calls, math.max(redis.call('PTTL', calls), hour))
end
return { echo, 'ok', now }
