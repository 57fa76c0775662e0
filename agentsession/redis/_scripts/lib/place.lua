-- Tells what is wrong with going back to an event, or to before the first: 'ahead', 'state_trimmed', 'taken_back' or 'trimmed'; nil if
-- nothing is. `count` is how many events were ever stored, `trimmed` how many of them the limit has trimmed.
local function problem_at(to, count, trimmed, taken, restores)
  if to > count then
    return 'ahead'
  elseif to == 0 then
    return restores and trimmed > 0 and 'state_trimmed' or nil
  end
  if to <= trimmed then
    return 'trimmed'
  end
  local gap = redis.call('ZRANGE', taken, to, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  return gap and tonumber(gap) < to and 'taken_back' or nil
end

-- Tells whether an event is in the middle of a turn that has not ended, by a lease as lib/lease.lua reads it.
local function is_within(lease, to, owner)
  local left = lease.left and tonumber(string.match(lease.left, ',(%d+),'))
  return (left and left < to) or (lease.owner and lease.owner ~= owner and lease.after < to)
end
