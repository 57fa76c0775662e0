--! keys: index
--! read:
-- Takes sessions that have expired out of the index.
--
-- KEYS   then the session of each id
-- ARGV   then the ids
-- Returns {echo, 'ok'}

for i = first, #ARGV do
  if redis.call('EXISTS', KEYS[i - first + 2]) == 0 then
    redis.call('ZREM', index, ARGV[i])
  end
end
return { echo, 'ok' }
