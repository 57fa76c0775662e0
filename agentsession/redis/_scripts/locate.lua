--! keys: session, events, ids
--! read: incarnation, event_id
--! uses head, position
-- Finds the position of an event that the log holds now.
--
-- ARGV   `incarnation` is what is expected, or ''
-- Returns {echo, 'found', position}, {echo, 'absent'}, or as lib/head.lua

local count, refusal = head(session, events, incarnation, echo)
if not count then
  return refusal
end
if not redis.call('ZSCORE', ids, event_id) then
  return { echo, 'absent' }
end
local position, rank = position_of(event_id, count, events, ids)
if rank < 0 then
  return { echo, 'absent' }
end
return { echo, 'found', position }
