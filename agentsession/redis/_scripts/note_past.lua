--! keys: session, events, ids, index, calls
--! write: id, incarnation, session_id, session_ttl
--! uses once, activity, session_expiry, past
-- Notes what the state of a session was before changes that another server has seen.
--
-- ARGV   `incarnation` is what is expected, or ''; then triples, in the order of the places: a place (lib/past.lua), a field, and what
--        it held or ''. What is not after the newest place that is known is left out; if nothing is left, nothing is written
-- Returns as update.lua, but for what is said of leases

local call = redis.call
local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
end
local meta = call('HMGET', session, 'v', 'incarnation', 'revision', 'count', 'updated', 'ttl', 'past')
local revision, count, updated = tonumber(meta[3]), tonumber(meta[4]), tonumber(meta[5])
local refusal
if not meta[1] and call('EXISTS', session) == 0 then
  refusal = { echo, known == 'ran' and 'gone' or 'missing', now }
elseif meta[1] ~= '1' then
  refusal = { echo, 'foreign', now, meta[1] or '' }
elseif incarnation ~= '' and incarnation ~= meta[2] then
  refusal = { echo, known == 'ran' and 'gone' or 'replaced', now }
elseif not (meta[2] and revision and count and updated) then
  refusal = { echo, 'damaged', now }
elseif known == 'refused' then
  refusal = { echo, 'missing', now } -- as it was then
end
if refusal then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return refusal
end

local _, changes, before = past_keys(session)
call('HLEN', before)
local newest = tonumber(call('ZREVRANGE', changes, 0, 0, 'WITHSCORES')[2] or -1)
local at = first
while at <= #ARGV and tonumber(ARGV[at]) <= newest do
  at = at + 3
end
if known == 'ran' or at > #ARGV then
  return { echo, 'ok', now, revision, count, updated, meta[2], 0 }
end
local top = call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
remember(calls, id, deadline, now)
local moment = moment_of(session_id, now, updated, top)
call('ZADD', index, moment, session_id)
while at <= #ARGV do
  local name = ARGV[at] .. ' ' .. ARGV[at + 1]
  call('ZADD', changes, ARGV[at], name)
  call('HSET', before, name, ARGV[at + 2])
  at = at + 3
end
call('HSET', session, 'revision', revision + 1, 'updated', moment)
if not meta[7] then
  call('HSET', session, 'past', '0 0')
end
move_session_expiry(session, events, ids, index, tonumber(session_ttl), meta[6], true)
return { echo, 'ok', now, revision + 1, count, moment, meta[2], 0 }
