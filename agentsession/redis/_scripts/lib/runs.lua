-- Finds the runs of a log that were not taken back: up to `size` events between two positions, both included; those at the lower end,
-- or at the upper one if `newest_first`. Returns a flat list, the first and the last of each run, in the order of the log, and how
-- many events they are. The cost grows with these, and not with what was taken back.
local function runs_of(taken, from, to, size, newest_first)
  local call, runs, count = redis.call, {}, 0
  local function add(first, last)
    if newest_first then
      first = math.max(first, last - (size - count) + 1)
    else
      last = math.min(last, first + (size - count) - 1)
    end
    if first <= last then
      runs[#runs + 1], runs[#runs + 2] = first, last
      count = count + last - first + 1
    end
  end
  if newest_first then
    local over = call('ZRANGE', taken, to, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
    if over and tonumber(over) < to then
      to = tonumber(over)
    end
  end
  while from <= to and count < size do
    local gaps
    if newest_first then
      gaps = call('ZREVRANGEBYSCORE', taken, to, from, 'WITHSCORES', 'LIMIT', 0, 32)
    else
      gaps = call('ZRANGE', taken, from, '+inf', 'BYSCORE', 'LIMIT', 0, 32, 'WITHSCORES')
    end
    for i = 1, #gaps, 2 do
      local back, mark = tonumber(gaps[i]), tonumber(gaps[i + 1])
      if newest_first then
        add(math.max(mark + 1, from), to)
        to = back
      else
        add(from, math.min(back, to))
        from = mark + 1
      end
      if from > to or count >= size then
        break
      end
    end
    if #gaps < 64 then
      if from <= to and count < size then
        add(from, to)
      end
      break
    end
  end
  if newest_first then
    local turned = {}
    for i = #runs - 1, 1, -2 do
      turned[#turned + 1], turned[#turned + 2] = runs[i], runs[i + 1]
    end
    runs = turned
  end
  return runs, count
end
