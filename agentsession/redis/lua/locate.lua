-- Finds the position of an event that the log holds now.
--
-- KEYS   1 session, 2 events, 3 ids
-- ARGV   1 echo, 2 event id
-- Returns {echo, 'found', position}, {echo, 'absent'} or {echo, 'missing'} when there is no session

local count = redis.call('HGET', KEYS[1], 'count')
if not count then
  return { ARGV[1], 'missing' }
end
local position = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0)
if position <= tonumber(count) - redis.call('ZCARD', KEYS[2]) then
  return { ARGV[1], 'absent' }
end
return { ARGV[1], 'found', position }
