--! keys: session, events, ids, index
--! read: incarnation, after, after_id, before, limit, newest_first, raw, refresh, session_ttl, most, harmless
--! uses head, events
-- Reads some of a session's log.
--
-- ARGV   `incarnation` is what is expected, or ''; `after` and `before` are positions, the latter or ''; `after_id` is the id that is
--        expected of the event at the former, or ''; `newest_first` is '1' to
--        read from the upper end, `raw` is '1' to read what was taken back too, `refresh` is '1' to move expiry; `most` and
--        `harmless` are what one read may return (lib/events.lua), or ''
-- Returns {echo, 'found', position of the first or the runs (lib/runs.lua), events, incarnation, the field `past` or false, last position},
--        {echo, 'large', number of events, bytes or more}, or as lib/head.lua

local count, trimmed, life, past = head(session, events, incarnation, echo)
if not count then
  local refusal = trimmed
  return refusal
end
if after_id ~= '' and tonumber(after) <= count then
  -- Counted from the end, as in lib/position.lua.
  local place = tonumber(after) - count - 1
  local found = redis.call('ZRANGE', ids, place, place)[1]
  if found and found ~= after_id then
    return { echo, 'replaced' }
  end
end
local size = tonumber(limit)
local from, to = math.max(tonumber(after), trimmed) + 1, count
if before ~= '' then
  to = math.min(tonumber(before) - 1, count)
end
local runs, number, taken
if past and raw ~= '1' then
  --! uses past, runs
  taken = past_keys(session)
  if not is_whole(taken, past, trimmed) then
    return { echo, 'damaged' }
  end
  runs, number = runs_of(taken, from, to, size, newest_first == '1')
else
  if newest_first == '1' then
    from = math.max(from, to - size + 1)
  else
    to = math.min(to, from + size - 1)
  end
  runs, number = from <= to and { from, to } or {}, math.max(to - from + 1, 0)
end
local ranks = {}
for i = 1, #runs do
  ranks[i] = runs[i] - trimmed - 1
end
local found, bytes = read_events(events, ranks, number, tonumber(most), tonumber(harmless))
if not found then
  return { echo, 'large', number, bytes }
end
if refresh == '1' then
  --! uses prolong
  prolong_session(tonumber(session_ttl), session, events, ids, index, past)
end
return { echo, 'found', #runs > 2 and runs or runs[1] or from, found, life, past, count }
