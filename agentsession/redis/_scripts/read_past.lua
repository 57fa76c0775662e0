--! keys: session, events
--! read: incarnation, after, limit
--! uses head, past, lease
-- Reads what a copy of a session needs besides its log and its state: what its state was, and the turn that has not ended.
--
-- ARGV   `incarnation` is what is expected, or ''; `after` is the place (lib/past.lua) after which to begin; `limit` is how many names
--        of state to read, of whole places, unless the first place has more
-- Returns {echo, 'found', incarnation, revision, turn or false, '1' if there is more or '', fields of `changes`, what they held}, where
--        a turn is {run, after, stop or '-', '1' if it waits or ''}; or as lib/head.lua

local call, count, refusal, life = redis.call, head(session, events, incarnation, echo)
if not count then
  return refusal
end
local time, meta = call('TIME'), call('HMGET', session, 'revision', 'lease')
local now = time[1] * 1000000 + time[2]
local lease = read_lease(meta[2], count, now)
local _, changes, before = past_keys(session)
if not lease or call('ZCARD', changes) ~= call('HLEN', before) then
  return { echo, 'damaged' }
end

local turn = false
if lease.owner and lease.ends == 0 then
  turn = { lease.run, string.format('%.0f', lease.after), '-', '1' }
elseif lease.left then
  local run, from, stop = string.match(lease.left, '^([^,]+),(%d+),([^,]+)$')
  turn = { run, from, stop, '' }
elseif lease.owner and count > lease.after then
  local stop = lease.stop == '-' and is_held(lease, now) and 'interrupted' or lease.stop
  turn = { lease.run, string.format('%.0f', lease.after), stop, '' }
end

local function place_of(name)
  return string.match(name, '^%S+')
end

local size, more = tonumber(limit), false
local names = call('ZRANGE', changes, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, size + 1)
if #names > size then
  local kept, cut = size, place_of(names[#names])
  while kept > 0 and place_of(names[kept]) == cut do
    kept = kept - 1
  end
  if kept > 0 then
    more = true
    while #names > kept do
      names[#names] = nil
    end
  else
    names = call('ZRANGE', changes, cut, cut, 'BYSCORE')
    more = call('ZCOUNT', changes, '(' .. cut, '+inf') > 0
  end
end
local olds = {}
for from = 1, #names, 1000 do
  local found = call('HMGET', before, unpack(names, from, math.min(from + 999, #names)))
  for i = 1, #found do
    olds[from + i - 1] = found[i]
  end
end
return { echo, 'found', life, meta[1] or '', turn, more and '1' or '', names, olds }
