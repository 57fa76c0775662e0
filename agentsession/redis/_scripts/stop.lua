--! keys: session, calls
--! write: id, run
--! uses once, lease
-- Has the turn that holds the lease of a session told to stop.
--
-- ARGV   `id` is the call's; `run` is the turn, or '' for whichever it is
-- Returns {echo, 'ok', now, run, 1 if it was told or 0}, {echo, 'missing', now}, {echo, 'damaged', now} or {echo, 'late', now}. A repeat is
--        answered as the first time was; `run` is '' then if it was not named and is over by now
--
-- A late copy must not stop the turn after it.

local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
end
local meta = redis.call('HMGET', session, 'incarnation', 'lease', 'count')
if not meta[1] then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return { echo, 'missing', now }
end
local lease = read_lease(meta[2], tonumber(meta[3]), now)
if not lease then
  return { echo, 'damaged', now }
end
local meant = lease.ends ~= 0 and is_held(lease, now) and (run == '' or run == lease.run)
if known then
  -- A turn that was told may have ended for it, before the answer could come.
  local told = run == '' and meant and lease.stop ~= '-' and lease.run or run
  return { echo, 'ok', now, told, known == 'ran' and 1 or 0 }
end
if not meant then
  remember_refused(calls, id, deadline, now)
  return { echo, 'ok', now, '', 0 }
end
remember(calls, id, deadline, now)
if lease.stop == '-' then
  lease.stop, lease.stopped = 'cancelled', now
  write_lease(session, lease)
  tell(session, lease.owner)
end
return { echo, 'ok', now, lease.run, 1 }
