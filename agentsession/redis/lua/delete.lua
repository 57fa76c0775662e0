--! uses once
-- Deletes sessions, each with all that belongs to it. An index without entries is gone by itself.
--
-- KEYS   1 index, 2 calls run lately, then all keys to delete
-- ARGV   1 echo, 2 the call, or '' for one to forget at once, 3 and on: session ids to take out of the index
-- Returns {echo, 'ok'}

local index, calls, this = KEYS[1], KEYS[2], ARGV[2]
if this ~= '' and ran_before(calls, this, lately) then
  return { ARGV[1], 'ok' }
end
redis.call('ZCARD', index) -- fails before anything is deleted if it holds another type of data
local deleted = 0
for i = 3, #KEYS do
  deleted = deleted + redis.call('UNLINK', KEYS[i])
end
for i = 3, #ARGV do
  redis.call('ZREM', index, ARGV[i])
end
if deleted > 0 and this ~= '' then
  remember(calls, this, lately)
elseif deleted == 0 then
  -- What was deleted before, by this call's first attempt perhaps, is acknowledged with a write: see lib/once.lua.
  redis.call('ZADD', calls, 0, '')
  redis.call('ZREM', calls, '')
end
return { ARGV[1], 'ok' }
