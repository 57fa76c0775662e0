--! keys: users, calls
--! write: id, since
--! uses once
-- Takes users of whom nothing is left off the list of an application's users.
--
-- KEYS   then for each user the index of sessions and the state, unless they are on another node
-- ARGV   `since` is a moment of this server's clock, after which nothing was seen of the users, or '' to take them off in any
--        case, since they were erased; then their ids
-- Returns {echo, 'ok', now} also if that is too long ago, or {echo, 'late', now}
--
-- Where their data are on another node, something may have been made there since. Then they were put on the list before that, and
-- are protected (enlist.lua) for longer than this call may be late.

local call = redis.call
local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now }
end
local was_there = call('ZCARD', users) > 0 -- fails before anything is written if it holds another type of data
call('ZREM', calls, id) -- a first write that needs no memory, as in delete.lua
if since ~= '' and now - since > margin then
  return { echo, 'ok', now }
end
for i = first, #ARGV do
  local at = 3 + 2 * (i - first)
  local made_since = #KEYS > 2 and call('EXISTS', KEYS[at], KEYS[at + 1]) > 0
  local protected = since ~= '' and (call('ZSCORE', calls, '+' .. ARGV[i]) or 0) - now >= 0
  if not made_since and not protected then
    call('ZREM', users, ARGV[i])
    call('ZREM', calls, '+' .. ARGV[i])
  end
end
local complete = call('ZSCORE', calls, '=complete')
if complete and call('EXISTS', users) == 0 then
  call('ZREM', calls, '=complete')
  -- Only a list that was there has come to be empty: one that expired or was evicted says nothing of who was on it.
  if was_there then
    call('ZADD', calls, complete, '=empty')
  end
end
remember(calls, id, deadline, now)
return { echo, 'ok', now }
