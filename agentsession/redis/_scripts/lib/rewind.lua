--! uses past, place, undo, lease
-- Looks whether the log can go back to where the mark in this call wants it, before anything is written.
--
-- Returns nil, nil and a function that goes back, in the step in which the mark is stored; or the refusal, and whether it may come to
-- be allowed: {echo, 'back', now, problem} with a problem of lib/place.lua, 'running' or 'stored'; or {echo, 'damaged', now}.
-- `named` is the lease that the call names, `raw` that of the session; `count` is how many events were stored before the mark.
local function look_back(session, events, ids, named, raw, past, count, now)
  local call, taken, changes, before = redis.call, past_keys(session)
  local to, restores, is_copy = ARGV[first + 5] + 0, ARGV[first + 6] == '1', ARGV[first + 6] == 'copy'
  -- These fail before anything is written if they hold another type of data.
  call('ZCARD', taken)
  local lease = read_lease(raw, count, now)
  local trimmed = count - call('ZCARD', events)
  if not lease or not is_whole(taken, past, trimmed) or call('ZCARD', changes) ~= call('HLEN', before) then
    return { echo, 'damaged', now }
  end
  local owner, holder = string.match(named, '^%S+'), lease.owner
  local problem = not (is_copy and to <= trimmed) and problem_at(to, count, trimmed, taken, restores)
  if not problem and is_within(lease, to, owner) then
    problem = 'running'
  end
  local at = first + 7
  while not problem and at <= #ARGV do
    problem = call('ZSCORE', ids, ARGV[at]) and 'stored' or nil
    at = at + 4 + 3 * ARGV[at + 3]
  end
  if problem then
    return { echo, 'back', now, problem }, problem == 'ahead' or problem == 'running'
  end
  return nil, nil, function()
    local mark = count + 1
    call('ZREMRANGEBYSCORE', taken, string.format('(%.0f', to), '+inf')
    call('ZADD', taken, mark, string.format('%.0f', to))
    if restores then
      undo(session, changes, before, to)
    end
    merge(changes, before, to, mark, not (restores or is_copy))
    call('HSET', session, 'past', string.format('%.0f %.0f', to == 0 and mark or string.match(past or '0', '^%d+'), mark))
    if lease.left or (holder and holder ~= owner) then
      -- A turn that was taken back writes nothing any more, and nothing of it is to be closed.
      lease.left = nil
      if holder ~= owner then
        lease.owner, lease.exclusive = nil, false
      end
      write_lease(session, lease)
      if holder and holder ~= owner then
        tell(session, holder)
        tell_the_next(session, now)
      end
    end
  end
end
