-- Looks at the head of a session that is to be read. Returns how many events were ever stored, how many of them the limit
-- has trimmed, the incarnation, and the field `past` or false (lib/past.lua); or nil and a refusal: {echo, 'missing'},
-- {echo, 'replaced'}, {echo, 'foreign', version or ''} or {echo, 'damaged'}.
local function head(session, events, incarnation, echo)
  local meta = redis.call('HMGET', session, 'v', 'incarnation', 'count', 'past')
  if meta[1] ~= '1' then
    if not meta[1] and redis.call('EXISTS', session) == 0 then
      return nil, { echo, 'missing' }
    end
    return nil, { echo, 'foreign', meta[1] or '' }
  end
  if incarnation ~= '' and incarnation ~= meta[2] then
    return nil, { echo, 'replaced' }
  end
  -- tonumber() alone would read 0x10, nan and inf as well.
  local count = tonumber(string.match(meta[3] or '', '^%d+$') or -1)
  local trimmed = count - redis.call('ZCARD', events)
  if not meta[2] or trimmed < 0 or count >= 2 ^ 53 then
    return nil, { echo, 'damaged' }
  end
  return count, trimmed, meta[2], meta[4]
end
