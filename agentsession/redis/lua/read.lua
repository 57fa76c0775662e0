--! uses events
-- Reads a run of a session's log.
--
-- KEYS   1 session, 2 events, 3 ids, 4 index
-- ARGV   1 echo, 2 after position, 3 before position or '', 4 limit, 5 '1' to read from the upper end, 6 '1' to move expiry,
--        7 session ttl, 8 most, 9 harmless: what one read may return (lib/events.lua), or nothing
-- Returns {echo, 'found', position of the first, events}, {echo, 'missing'}, {echo, 'foreign', version found or ''},
--        {echo, 'damaged'} or {echo, 'large', number of events, bytes or more}

local session, events = KEYS[1], KEYS[2]
local meta = redis.call('HMGET', session, 'v', 'count', 'ttl')
if meta[1] ~= '1' then
  if not meta[1] and redis.call('EXISTS', session) == 0 then
    return { ARGV[1], 'missing' }
  end
  return { ARGV[1], 'foreign', meta[1] or '' }
end
-- tonumber() alone would read 0x10, nan and inf as well.
local count, limit = tonumber(string.match(meta[2] or '', '^%d+$') or -1), tonumber(ARGV[4])
local trimmed = count - redis.call('ZCARD', events)
if trimmed < 0 or count >= 2 ^ 53 then
  return { ARGV[1], 'damaged' }
end
local first = math.max(tonumber(ARGV[2]), trimmed) + 1
local last = count
if ARGV[3] ~= '' then
  last = math.min(tonumber(ARGV[3]) - 1, count)
end
if ARGV[5] == '1' then
  first = math.max(first, last - limit + 1)
else
  last = math.min(last, first + limit - 1)
end
local most, harmless
if ARGV[8] then
  most, harmless = tonumber(ARGV[8]), tonumber(ARGV[9])
end
local found, size = read_events(events, first - trimmed - 1, last - trimmed - 1, most, harmless)
if not found then
  return { ARGV[1], 'large', last - first + 1, size }
end
if ARGV[6] == '1' then
  --! uses session_expiry
  move_session_expiry(session, events, KEYS[3], KEYS[4], tonumber(ARGV[7]), meta[3])
end
return { ARGV[1], 'found', first, found }
