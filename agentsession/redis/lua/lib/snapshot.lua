-- Reads a session whole: {fields, user state, app state or false, rank of the first event, length of the log, events}.
-- after: position, 0 for the start; since: microseconds or ''; last: a number or ''. All three hold at once.

local function snapshot(session, events, user, app, after, since, last)
  local length = redis.call('ZCARD', events)
  local start = 0
  if after > 0 then
    start = math.max(start, after - (tonumber(redis.call('HGET', session, 'count')) or 0) + length)
  end
  if since ~= '' then
    start = math.max(start, length - redis.call('ZCOUNT', events, since, '+inf'))
  end
  if last ~= '' then
    start = math.max(start, length - tonumber(last))
  end
  local found = {}
  if start < length then
    found = redis.call('ZRANGE', events, start, -1)
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
