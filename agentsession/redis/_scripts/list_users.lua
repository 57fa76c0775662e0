--! keys: users, calls
--! read: after, limit
-- Reads a run of the list of an application's users, in the order of their ids.
--
-- ARGV   `after` is the id that the run comes after, '' for the start
-- Returns {echo, 'found', now, 1 if the list is known to be complete or 0, ids}

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local word = redis.call('EXISTS', users) == 1 and '=complete' or '=empty'
local complete = (redis.call('ZSCORE', calls, word) or 0) - now > 0
return {
  echo,
  'found',
  now,
  complete and 1 or 0,
  redis.call('ZRANGEBYLEX', users, '(' .. after, '+', 'LIMIT', 0, limit),
}
