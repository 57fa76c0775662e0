--! keys: index
--! read: highest, limit
-- Reads a run of a user's index, newest activity first.
--
-- ARGV   `highest` is the highest score to return, or '+inf'
-- Returns {echo, 'found', id, score, id, score, ...} as one flat list in the third place

return { echo, 'found', redis.call('ZREVRANGEBYSCORE', index, highest, '-inf', 'WITHSCORES', 'LIMIT', 0, limit) }
