--! keys: users
--! read: after, limit
-- Reads a run of the list of an application's users, in the order of their ids.
--
-- ARGV   `after` is the id that the run comes after, '' for the start
-- Returns {echo, 'found', now, whether the list is complete, ids}

local time = redis.call('TIME')
return {
  echo,
  'found',
  time[1] * 1000000 + time[2],
  redis.call('ZSCORE', users, '') and 1 or 0,
  redis.call('ZRANGEBYLEX', users, '(' .. after, '+', 'LIMIT', 0, limit),
}
