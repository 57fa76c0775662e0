--! keys: session, calls
--! write: id, incarnation, owner, run, how, ttl, grace, exclusive, in_line
--! uses once, lease
-- Asks for the lease of a session, or goes on asking.
--
-- ARGV   `id` is the call's; `incarnation` is what is expected, or ''; `how` is 'queue', 'reject', 'interrupt' or 'resume'; `ttl` and
--        `grace` are in milliseconds; `exclusive` is '1' or ''; `in_line` is '1' if the owner was told
--        before that it is in line
-- Returns {echo, 'held', now, incarnation, token, ends, stop or '-', what is to be closed or ''},
--        {echo, 'in_line', 'busy', 'full', 'superseded' or 'gone', now, incarnation, who is before it: run or '', when that lease ends
--        or 0, when to ask again or 0},
--        {echo, 'late', now}, {echo, 'missing', now}, {echo, 'replaced', now} or {echo, 'foreign', now, version or ''}
--
-- Nothing else of the session changes: to ask is no write to it. The rules are those of agentsession.memory._turns.

local call = redis.call
local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
end
local meta = call('HMGET', session, 'v', 'incarnation', 'count', 'lease')
local count = tonumber(meta[3])
local refusal
if not meta[1] and call('EXISTS', session) == 0 then
  refusal = { echo, 'missing', now }
elseif meta[1] ~= '1' then
  refusal = { echo, 'foreign', now, meta[1] or '' }
elseif incarnation ~= '' and incarnation ~= meta[2] then
  refusal = { echo, 'replaced', now }
elseif not (meta[2] and count) then
  refusal = { echo, 'damaged', now }
end
if refusal then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return refusal
end

local lease, line = read_lease(meta[4]), read_line(session, now)

local function held()
  return { echo, 'held', now, meta[2], lease.token, lease.ends, lease.stop, lease.left or '' }
end

local function behind(word)
  local who, ends, ask = '', 0, 0
  if is_held(lease, now) then
    who, ends = lease.run, lease.ends
    if ends ~= 0 then
      ask = ends + 1
      if how == 'interrupt' and lease.stop ~= '-' then
        ask = math.min(ask, lease.stopped + 1000 * grace)
      end
    end
  elseif line[1] then
    who, ask = line[1].run, line[1].kept + 1
  end
  if word == 'superseded' then
    for _, place in ipairs(line) do
      who = place.interrupts and place.run or who
    end
  end
  return { echo, word, now, meta[2], who, ends, word == 'in_line' and ask or 0 }
end

local own
for i, place in ipairs(line) do
  own = place.owner == owner and i or own
end
if lease.owner == owner and lease.ends ~= 0 and is_held(lease, now) then
  if not known then
    remember(calls, id, deadline, now)
  end
  return held()
end
if known then
  -- A copy of a call does nothing again: not even after what it had won was given back.
  return behind(own and 'in_line' or 'gone')
end

local interrupts, free = how == 'interrupt', not is_held(lease, now)
if how == 'resume' then
  free = lease.owner and lease.ends == 0 and lease.run == run
  if not free then
    remember_refused(calls, id, deadline, now)
    return behind('busy')
  end
elseif interrupts and in_line == '1' and not own then
  remember_refused(calls, id, deadline, now)
  return behind('superseded')
elseif interrupts and not free then
  if lease.ends ~= 0 and lease.stop == '-' then
    lease.stop, lease.stopped = 'interrupted', now
    remember(calls, id, deadline, now) -- before the first write, so that a server without memory refuses both
    write_lease(session, lease)
    tell(session, lease.owner)
  end
  free = lease.ends == 0 or now >= lease.stopped + 1000 * grace
end
local told = {}
if interrupts then
  for i = #line, 1, -1 do
    if line[i].interrupts and line[i].owner ~= owner then
      told[#told + 1] = table.remove(line, i).owner
    end
  end
end
local is_next = not line[1] or line[1].owner == owner

if free and (interrupts or how == 'resume' or is_next) then
  remember(calls, id, deadline, now)
  for i = #line, 1, -1 do
    if line[i].owner == owner then
      table.remove(line, i)
    end
  end
  local before, after = lease.owner, count
  if before then
    if how == 'resume' then
      after = lease.after
    elseif not lease.left and count > lease.after then
      local stop = lease.stop
      if stop == '-' and is_held(lease, now) then
        stop = 'interrupted'
      end
      lease.left = string.format('%s,%.0f,%s', lease.run, lease.after, stop)
    end
    told[#told + 1] = before
  end
  lease.token = math.max(lease.token + 1, now)
  lease.owner, lease.run, lease.ends, lease.ttl = owner, run, now + 1000 * ttl, tonumber(ttl)
  lease.after, lease.stop, lease.stopped, lease.exclusive = after, '-', 0, exclusive == '1'
  write_lease(session, lease)
  if own or #told > 0 then
    write_line(session, line)
  end
  for _, each in ipairs(told) do
    tell(session, each)
  end
  return held()
end

if how == 'reject' then
  remember_refused(calls, id, deadline, now)
  return behind('busy')
end
if not own and not interrupts and #line >= longest_line then
  remember_refused(calls, id, deadline, now)
  return behind('full')
end
remember(calls, id, deadline, now)
local place = { owner = owner, run = run, interrupts = interrupts }
for i = #line, 1, -1 do
  if line[i].owner == owner then
    place = line[i]
    own = i
  end
end
place.kept = now + place_kept
if not own then
  table.insert(line, interrupts and 1 or #line + 1, place)
end
write_line(session, line)
for _, each in ipairs(told) do
  tell(session, each)
end
return behind('in_line')
