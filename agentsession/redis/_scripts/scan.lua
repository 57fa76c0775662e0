--! keys: near
--! read: cursor, pattern
-- Walks over some of a server's keys, and returns those that belong to a user as a whole: their names end with the hash tag.
--
-- KEYS   `near` leads the call to one node of a cluster, and need not exist
-- Returns {echo, 'found', next cursor, names}

local reply = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
local names = {}
for _, name in ipairs(reply[2]) do
  if string.sub(name, -1) == '}' then
    names[#names + 1] = name
  end
end
return { echo, 'found', reply[1], names }
