--! uses session_name, head, past, place, undo, lease
-- Copies a session of the same user, as it was right after the event at a position, or as it is if that is ''.
--
-- Returns nil, and a function that makes the copy of it, given the new session and its keys, and returns whether the copy has the
-- keys of lib/past.lua; or the refusal: as lib/head.lua has it, or {echo, 'back', now, problem} as lib/place.lua and 'running'.
local function look_at_origin(index, origin, incarnation, at, now)
  local call, source = redis.call, session_name(index, origin)
  local events, ids = beside(source, 'events'), beside(source, 'eventids')
  local taken, changes, before = past_keys(source)
  local count, trimmed, _, past = head(source, events, incarnation, echo)
  if not count then
    local refusal = trimmed
    table.insert(refusal, 3, now)
    return refusal
  end
  local lease = read_lease(call('HGET', source, 'lease'), count, now)
  if not lease or not is_whole(taken, past, trimmed) or call('ZCARD', changes) ~= call('HLEN', before) then
    return { echo, 'damaged', now }
  end
  local upto = at == '' and count or tonumber(at)
  if at ~= '' then
    local problem = problem_at(upto, count, trimmed, taken, true) or (is_within(lease, upto) and 'running')
    if problem then
      return { echo, 'back', now, problem }
    end
  end

  -- What a turn needs that goes on in the copy, or is to be closed there.
  local function lease_of_copy()
    if at ~= '' then
      return
    end
    local waits = lease.owner and lease.ends == 0
    if not waits and lease.owner and not lease.left and count > lease.after then
      local stop = lease.stop == '-' and is_held(lease, now) and 'interrupted' or lease.stop
      lease.left = string.format('%s,%.0f,%s', lease.run, lease.after, stop)
    end
    if not waits then
      lease.owner, lease.exclusive = nil, false
    end
    return waits or lease.left
  end

  return nil, function(session, new_events, new_ids)
    local new_taken, new_changes, new_before = past_keys(session)
    local fields = call('HGETALL', source)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 6) == 'state:' then
        call('HSET', session, fields[i], fields[i + 1])
      end
    end
    local last = 0
    if upto > trimmed then
      call('ZRANGESTORE', new_events, events, 0, upto - trimmed - 1)
      last = call('ZRANGE', new_events, -1, -1, 'WITHSCORES')[2]
      call('ZRANGESTORE', new_ids, ids, 0, -(count - upto) - 1)
    elseif upto > 0 then
      last = call('HGET', source, 'last')
    end
    call('HSET', session, 'count', upto, 'last', last)
    if lease_of_copy() then
      write_lease(session, lease)
    end
    if not past then
      return false
    end
    call('ZRANGESTORE', new_taken, taken, '-inf', upto, 'BYSCORE')
    call('ZRANGESTORE', new_changes, changes, '-inf', at == '' and '+inf' or upto, 'BYSCORE')
    local from = 0
    repeat
      local names = call('ZRANGE', new_changes, from, from + 999)
      for i = 1, #names do
        call('HSET', new_before, names[i], call('HGET', before, names[i]))
      end
      from = from + #names
    until #names < 1000
    if at ~= '' then
      undo(session, changes, before, upto)
    end
    local begins = tonumber(string.match(past, '^%d+'))
    local mark = call('ZREVRANGE', new_taken, 0, 0, 'WITHSCORES')[2] or 0
    call('HSET', session, 'past', string.format('%.0f %.0f', begins <= upto and begins or 0, mark))
    return true
  end
end
