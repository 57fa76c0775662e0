-- Deletes sessions, each with all that belongs to it. An index without entries is gone by itself.
--
-- KEYS   1 index, then all keys to delete
-- ARGV   1 echo, 2 and on: session ids to take out of the index
-- Returns {echo, 'ok'}

for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
for i = 2, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
end
return { ARGV[1], 'ok' }
