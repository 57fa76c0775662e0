-- Finds the position of an event that the log holds now.
--
-- KEYS   1 session, 2 events, 3 ids
-- ARGV   1 echo, 2 event id
-- Returns {echo, 'found', position}, {echo, 'absent'}, {echo, 'missing'} when there is no session,
--        {echo, 'foreign', version found or ''} or {echo, 'damaged'}

local meta = redis.call('HMGET', KEYS[1], 'v', 'count')
if meta[1] ~= '1' then
  if not meta[1] and redis.call('EXISTS', KEYS[1]) == 0 then
    return { ARGV[1], 'missing' }
  end
  return { ARGV[1], 'foreign', meta[1] or '' }
end
local count = tonumber(string.match(meta[2] or '', '^%d+$') or -1)
local trimmed = count - redis.call('ZCARD', KEYS[2])
local position = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0)
if trimmed < 0 or count >= 2 ^ 53 or position > count or position % 1 ~= 0 then
  return { ARGV[1], 'damaged' }
end
if position <= trimmed then
  return { ARGV[1], 'absent' }
end
return { ARGV[1], 'found', position }
