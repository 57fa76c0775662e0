-- Reads a run of a user's index, newest activity first.
--
-- KEYS   1 index
-- ARGV   1 echo, 2 the highest score to return or '+inf', 3 how many
-- Returns {echo, 'found', id, score, id, score, ...} as one flat list in the third place

return { ARGV[1], 'found', redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3]) }
