--! read:
-- Looks whether anything is left of users.
--
-- KEYS   indexes of sessions, and state
-- Returns {echo, 'found', for each key 1 or 0}

local reply = { echo, 'found' }
for i = 1, #KEYS do
  reply[i + 2] = redis.call('EXISTS', KEYS[i])
end
return reply
