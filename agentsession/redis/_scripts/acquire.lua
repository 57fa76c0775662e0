--! keys: session, events, ids, index, calls
--! write: id, incarnation, session_id, news, owner, run, how, joins, ttl, grace, exclusive, session_ttl
--! uses once, lease, prolong, news
-- Asks for the lease of a session, or goes on asking.
--
-- ARGV   `id` is the call's; `incarnation` is what is expected, or ''; `news` is how followers are told; `run` is the turn, or '' for whichever waits; `how` is 'queue',
--        'reject', 'interrupt' or 'resume'; `joins` is '1' not to wait for a turn of the same run; `ttl`, `grace` and `session_ttl` are in
--        milliseconds, the latter 0 for ever; `exclusive` is '1' or ''
-- Returns {echo, 'held', now, incarnation, token, ends, stop or '-', what is to be closed or '', run, after},
--        {echo, 'in_line', 'busy', 'full', 'superseded', 'refused' or 'gone', now, incarnation, who is before it: run or '', when that lease ends
--        or 0, when to ask again or 0},
--        {echo, 'late', now}, {echo, 'missing', now}, {echo, 'replaced', now}, {echo, 'damaged', now} or
--        {echo, 'foreign', now, version or ''}
--
-- Nothing else of the session changes: to ask is no write to it. But whoever gets the lease moves its expiry ahead, so that it does
-- not expire in the middle of a turn. The rules are those of agentsession.backend.turns.

local call = redis.call
local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
end
local meta = call('HMGET', session, 'v', 'incarnation', 'count', 'lease', 'past')
local count = tonumber(meta[3])
local lease = count and read_lease(meta[4], count, now)
local refusal
if not meta[1] and call('EXISTS', session) == 0 then
  refusal = { echo, 'missing', now }
elseif meta[1] ~= '1' then
  refusal = { echo, 'foreign', now, meta[1] or '' }
elseif incarnation ~= '' and incarnation ~= meta[2] then
  refusal = { echo, 'replaced', now }
elseif not (meta[2] and lease) then
  refusal = { echo, 'damaged', now }
end
if refusal then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return refusal
end

local line = read_line(session, now)
local first, waiting = first_of(line)
local own
for i, place in ipairs(line) do
  own = place.owner == owner and i or own
end

local function held()
  return { echo, 'held', now, meta[2], lease.token, lease.ends, lease.stop, lease.left or '', lease.run, lease.after }
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
  elseif first then
    who, ask = first.run, first.kept + 1
  end
  if word == 'superseded' then
    who, ends = line[own].run, 0
  end
  return { echo, word, now, meta[2], who, ends, word == 'in_line' and ask or 0 }
end

local function refused(word)
  remember_refused(calls, id, deadline, now)
  return behind(word)
end

if has_lease(lease, owner, now) then
  if not known then
    remember(calls, id, deadline, now)
  end
  return held()
end
if known then
  -- A copy of a call does nothing again: not even after what it had won was given back.
  local waits = own and line[own].how ~= 's' and (is_held(lease, now) or first.owner ~= owner)
  return behind(waits and 'in_line' or known == 'refused' and 'refused' or 'gone')
end

if lease.is_new then
  write_lease(session, lease) -- what it has come to by itself, whatever happens to the log from now on
end
local interrupts, free = how == 'interrupt', not is_held(lease, now)
if how == 'resume' then
  if not (lease.owner and lease.ends == 0 and (run == '' or lease.run == run)) then
    return refused('busy')
  end
  free = true
elseif own and line[own].how == 's' then
  return refused('superseded')
elseif joins == '1' and not free and lease.run == run then
  return refused('busy')
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
  for _, place in ipairs(line) do
    if place.how == 'i' and place.owner ~= owner then
      place.how, place.run, place.kept = 's', run, now + place_kept
      told[#told + 1] = place.owner
    end
  end
end

if free and (interrupts or how == 'resume' or not first or first.owner == owner) then
  remember(calls, id, deadline, now)
  if own then
    table.remove(line, own)
  end
  local before, after = lease.owner, count
  if before then
    if how == 'resume' then
      after, run = lease.after, lease.run
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
  lease.resumed = how == 'resume' and count or nil
  write_lease(session, lease)
  if own or #told > 0 then
    write_line(session, line)
  end
  prolong_session(tonumber(session_ttl), session, events, ids, index, meta[5])
  for _, each in ipairs(told) do
    tell(session, each)
  end
  tell_followers(news, index, session_id, 'began ' .. run)
  return held()
end

if how == 'reject' then
  return refused('busy')
end
if not own and not interrupts and waiting >= longest_line then
  return refused('full')
end
remember(calls, id, deadline, now)
if own then
  line[own].kept = now + place_kept
else
  local place = { owner = owner, run = run, how = interrupts and 'i' or 'q', kept = now + place_kept }
  table.insert(line, interrupts and 1 or #line + 1, place)
end
first = first_of(line)
write_line(session, line)
for _, each in ipairs(told) do
  tell(session, each)
end
return behind('in_line')
