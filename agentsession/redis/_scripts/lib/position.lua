-- Finds the position of an event whose id is known, and its rank in the log, negative if the limit has trimmed it.
-- Ids and events are added together and leave from the front, so both are counted from the end.
local function position_of(id, count, events, ids)
  local position = count - (redis.call('ZCARD', ids) - 1 - redis.call('ZRANK', ids, id))
  return position, position - 1 - (count - redis.call('ZCARD', events))
end
