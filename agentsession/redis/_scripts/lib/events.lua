-- Reads the events of a log from one rank to another, both included, unless they are more than `most` bytes in all.
-- `harmless` events are never more; without `most` any number is read. Returns the events; or nil, and how many bytes they are, or more.
--
-- Events of a million bytes must not all be in the server's memory before it is known that they are too many, so they
-- are read in runs that are harmless themselves. That a million of small ones are too many is known by their number.

local function read_events(events, first, last, most, harmless)
  local count = last - first + 1
  if not most or count <= harmless then
    return count > 0 and redis.call('ZRANGE', events, first, last) or {}
  end
  local size = count * 100
  if size > most then
    return nil, size
  end
  local found, n = {}, 0
  size = 0
  for start = first, last, harmless do
    local run = redis.call('ZRANGE', events, start, math.min(start + harmless - 1, last))
    for i = 1, #run do
      local event = run[i]
      size = size + #event
      found[n + i] = event
    end
    n = n + #run
    if size > most then
      return nil, size
    end
  end
  return found
end
