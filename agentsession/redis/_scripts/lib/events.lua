-- Reads runs of a log, a flat list of the first and the last rank of each, unless they are more than `most` bytes in all.
-- `harmless` events are never more; without `most` any number is read. Returns the events; or nil, and how many bytes they are, or more.
--
-- Events of a million bytes must not all be in the server's memory before it is known that they are too many, so they
-- are read in pieces that are harmless themselves. That a million of small ones are too many is known by their number.

local function read_events(events, runs, count, most, harmless)
  local all = not most or count <= harmless
  if #runs == 2 and all then
    return redis.call('ZRANGE', events, runs[1], runs[2])
  end
  local size = count * 100
  if not all and size > most then
    return nil, size
  end
  local found, n = {}, 0
  size = 0
  for run = 1, #runs, 2 do
    local step = all and count or harmless
    for start = runs[run], runs[run + 1], step do
      local piece = redis.call('ZRANGE', events, start, math.min(start + step - 1, runs[run + 1]))
      for i = 1, #piece do
        local event = piece[i]
        size = size + #event
        found[n + i] = event
      end
      n = n + #piece
      if not all and size > most then
        return nil, size
      end
    end
  end
  return found
end
