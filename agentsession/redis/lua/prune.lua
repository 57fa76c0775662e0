-- Takes sessions that have expired out of the index.
--
-- KEYS   1 index, the session of each id
-- ARGV   1 echo, 2 and on: session ids
-- Returns {echo, 'ok'}

for i = 2, #ARGV do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return { ARGV[1], 'ok' }
