--! keys: session, events, ids, index
--! write: owner, ttl, session_ttl
--! uses lease, prolong
-- Begins the time to live of a lease anew.
--
-- ARGV   `ttl` and `session_ttl` are in milliseconds, the latter 0 for ever
-- Returns as acquire.lua: {echo, 'held', ...}; or {echo, 'late', now}, {echo, 'missing', now}, {echo, 'damaged', now} or
--        {echo, 'lost', now}
--
-- A late copy only lets the lease live a little longer, and only if it is held still.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > deadline then
  return { echo, 'late', now }
end
local meta = redis.call('HMGET', session, 'incarnation', 'lease', 'count', 'past')
if not meta[1] then
  return { echo, 'missing', now }
end
local lease = read_lease(meta[2], tonumber(meta[3]), now)
if not lease then
  return { echo, 'damaged', now }
end
if not has_lease(lease, owner, now) then
  return { echo, 'lost', now }
end
lease.ends, lease.ttl = math.max(lease.ends, now + 1000 * ttl), math.max(lease.ttl, tonumber(ttl))
write_lease(session, lease)
prolong_session(tonumber(session_ttl), session, events, ids, index, meta[4])
return { echo, 'held', now, meta[1], lease.token, lease.ends, lease.stop, lease.left or '', lease.run, lease.after }
