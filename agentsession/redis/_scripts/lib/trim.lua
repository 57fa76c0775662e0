-- Takes the events over a limit out of a log, and with them the rest of the turn that this cuts, by the rule of
-- agentsession.backend.trimming. Returns the position of the oldest that is left.
--
-- The field `cut` of a session is the position up to which this need not be looked for again: no turn begins before it.
local function trim(session, events, count, limit)
  local call, find, sub, byte = redis.call, string.find, string.sub, string.byte
  local length = call('ZCARD', events)
  if length <= limit then
    return count - length + 1
  end

  -- Returns where the text ends that begins at a place: its quote is the first with an even number of backslashes before it.
  local function closing(payload, start)
    local quote = find(payload, '"', start, true)
    while quote and byte(payload, quote - 1) == 92 and #string.match(sub(payload, start, quote - 1), '\\*$') % 2 == 1 do
      quote = find(payload, '"', quote + 1, true)
    end
    return quote or #payload
  end

  -- Returns whether an event is the user's, the id of its turn or '', and whether that is its own; all as they are written. How
  -- an event begins is a part of the stored format (agentsession.codec): version, id, time, author, and the turn if there is one.
  -- Bytes are looked at first, since each text that is cut out is made anew.
  local function heading(payload)
    local id_end = find(payload, '","timestamp":"', 14, true)
    local author = id_end and find(payload, '","author":"', id_end + 15, true)
    if not author then
      return false, '', false
    end
    author = author + 12
    local author_end, turn, own = closing(payload, author), '', false
    if byte(payload, author_end + 3) == 105 and sub(payload, author_end, author_end + 18) == '","invocation_id":"' then
      turn = sub(payload, author_end + 19, closing(payload, author_end + 19) - 1)
      own = turn ~= '' and turn == sub(payload, 14, id_end - 1)
    end
    return author_end == author + 4 and sub(payload, author, author_end - 1) == 'user', turn, own
  end

  local gone = length - limit
  local look = math.min(64, math.floor(limit / 2)) -- TRIM_LOOK of agentsession.backend
  local _, before = heading(call('ZRANGE', events, gone - 1, gone - 1)[1])
  local at, found = gone, false
  while at < gone + look and not found do
    local run = call('ZRANGE', events, at, math.min(at + 7, gone + look - 1))
    for i = 1, #run do
      local of_user, turn, own = heading(run[i])
      if own or (of_user and (turn == '' or turn ~= before)) then
        found = true
        break
      end
      at, before = at + 1, turn
    end
    if #run < 8 then
      break
    end
  end
  local oldest = count - length + 1
  call('HSET', session, 'cut', string.format('%.0f', oldest + at))
  if found then
    gone = at
  end
  call('ZREMRANGEBYRANK', events, 0, gone - 1)
  return oldest + gone
end
