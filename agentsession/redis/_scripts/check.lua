--! keys: hash, set
--! read:
-- Looks for what endangers the data, and tries every command that the other scripts use.
--
-- KEYS   a hash, a sorted set, then one more of each kind: names that no data has
-- Returns {echo, 'found', the present in microseconds or false, sections of INFO, false for one that is denied,
--          command, error, command, error ... for those that fail, as one flat list in the fifth place}
--
-- Nothing here fails as a whole, and nothing is left behind: the one command that writes is tried only if what it
-- writes can be deleted, the others find nothing to change.

local failures = {}

local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    failures[#failures + 1] = command
    failures[#failures + 1] = reply.err
    return nil
  end
  return reply
end

local sections = {}
for i, section in ipairs({ 'server', 'memory', 'persistence', 'replication' }) do
  local reply = redis.pcall('INFO', section)
  sections[i] = type(reply) == 'string' and reply or false
end

local time = try('TIME')
-- The first write, since a server that is out of memory lets a script go on that has written before.
try('ZADD', set, 'XX', 1, 'm')
for _, words in ipairs({
  { 'EXISTS', hash }, { 'HLEN', hash }, { 'HGET', hash, 'f' }, { 'HMGET', hash, 'f' }, { 'HGETALL', hash },
  { 'HDEL', hash, 'f' }, { 'PEXPIRE', hash, 1000 }, { 'PTTL', hash }, { 'PERSIST', hash },
  { 'ZCARD', set }, { 'ZSCORE', set, 'm' }, { 'ZRANK', set, 'm' }, { 'ZCOUNT', set, 0, 1 },
  { 'ZRANGE', set, 0, 1 }, { 'ZRANGEBYLEX', set, '-', '+' }, { 'ZREVRANGE', set, 0, 1 }, { 'ZREVRANGEBYSCORE', set, 1, 0 }, { 'ZRANGESTORE', set, set, 0, 1 },
  { 'SCAN', '0', 'COUNT', '1' }, { 'PUBLISH', string.sub(hash, 1, string.find(hash, '{', 1, true) - 9) .. 'inbox:check', '' },
  { 'ZREM', set, 'm' }, { 'ZREMRANGEBYRANK', set, 0, 1 }, { 'ZREMRANGEBYSCORE', set, 0, 1 },
}) do
  try(unpack(words))
end
if try('UNLINK', hash) then
  try('HSET', hash, 'f', 'v')
  redis.pcall('UNLINK', hash)
end
return { echo, 'found', time and time[1] * 1000000 + time[2] or false, sections, failures }
