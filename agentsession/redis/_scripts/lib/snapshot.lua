-- Reads a session whole: {fields, user state, app state or false, rank of the first event, or the runs (lib/runs.lua) where
-- something was taken back, or false where it is not known what, length of the log, events, how far stands what came before the window (Snapshot.kept_to)};
-- or returns nil, the number of events and how many bytes they are, or more, if one read may not return that much.
-- after: position, 0 for the start; since: microseconds or ''; last: a number or ''. All three hold at once.
-- most, harmless: numbers, what one read may return (lib/events.lua); nil for any amount.

local function snapshot(session, events, user, app, after, since, last, most, harmless)
  local call = redis.call
  local length, head = call('ZCARD', events), call('HMGET', session, 'count', 'past')
  -- A damaged count is for the caller to notice.
  local count = tonumber(string.match(head[1] or '', '^%d+$') or 0)
  local start, kept = 0, after
  if after > 0 then
    start = math.max(start, after - count + length)
  end
  if since ~= '' then
    start = math.max(start, length - call('ZCOUNT', events, since, '+inf'))
  end
  local place, ranks, number
  if head[2] and count >= length and count < 2 ^ 53 then
    --! uses past, runs
    local taken, trimmed = past_keys(session), count - length
    place, number = false, 0
    if is_whole(taken, head[2], trimmed) then
      place, number = runs_of(taken, start + trimmed + 1, count, tonumber(last) or count, true)
    end
    ranks = {}
    for i = 1, place and #place or 0 do
      ranks[i] = place[i] - trimmed - 1
    end
    local gap = after > 0 and call('ZRANGE', taken, string.format('(%.0f', after), '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
    kept = gap and math.min(tonumber(gap), after) or after
  else
    if last ~= '' then
      start = math.max(start, length - tonumber(last))
    end
    place, number = start, math.max(length - start, 0)
    ranks = number > 0 and { start, length - 1 } or {}
  end
  local found, size = read_events(events, ranks, number, most, harmless)
  if not found then
    return nil, number, size
  end
  return {
    call('HGETALL', session),
    call('HGETALL', user),
    app and call('HGETALL', app) or false,
    place,
    length,
    found,
    kept,
  }
end
