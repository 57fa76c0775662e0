-- Reads a session whole: {fields, user state, app state or false, rank of the first event, length of the log, events};
-- or returns nil, the number of events and how many bytes they are, or more, if one read may not return that much.
-- after: position, 0 for the start; since: microseconds or ''; last: a number or ''. All three hold at once.
-- most, harmless: numbers, what one read may return (lib/events.lua); nil for any amount.

local function snapshot(session, events, user, app, after, since, last, most, harmless)
  local length = redis.call('ZCARD', events)
  local start = 0
  if after > 0 then
    -- A damaged count is for the caller to notice.
    local count = string.match(redis.call('HGET', session, 'count') or '', '^%d+$') or 0
    start = math.max(start, after - count + length)
  end
  if since ~= '' then
    start = math.max(start, length - redis.call('ZCOUNT', events, since, '+inf'))
  end
  if last ~= '' then
    start = math.max(start, length - tonumber(last))
  end
  local found, size = read_events(events, start, length - 1, most, harmless)
  if not found then
    return nil, length - start, size
  end
  return {
    redis.call('HGETALL', session),
    redis.call('HGETALL', user),
    app and redis.call('HGETALL', app) or false,
    start,
    length,
    found,
  }
end
