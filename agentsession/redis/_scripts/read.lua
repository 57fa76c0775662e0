--! keys: session, events, ids, index
--! read: incarnation, after, before, limit, newest_first, refresh, session_ttl, most, harmless
--! uses head, events
-- Reads a run of a session's log.
--
-- ARGV   `incarnation` is what is expected, or ''; `after` and `before` are positions, the latter or ''; `newest_first` is '1' to
--        read from the upper end, `refresh` is '1' to move expiry; `most` and `harmless` are what one read may return
--        (lib/events.lua), or ''
-- Returns {echo, 'found', position of the first, events, incarnation}, {echo, 'large', number of events, bytes or more}, or as lib/head.lua

local count, trimmed, life = head(session, events, incarnation, echo)
if not count then
  return trimmed
end
local size = tonumber(limit)
local from, to = math.max(tonumber(after), trimmed) + 1, count
if before ~= '' then
  to = math.min(tonumber(before) - 1, count)
end
if newest_first == '1' then
  from = math.max(from, to - size + 1)
else
  to = math.min(to, from + size - 1)
end
local found, bytes = read_events(events, from - trimmed - 1, to - trimmed - 1, tonumber(most), tonumber(harmless))
if not found then
  return { echo, 'large', to - from + 1, bytes }
end
if refresh == '1' then
  --! uses prolong
  prolong(tonumber(session_ttl), session, events, ids, index)
end
return { echo, 'found', from, found, life }
