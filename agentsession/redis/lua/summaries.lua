-- Reads the sessions of a page without their events, and takes those that have expired out of the index.
--
-- KEYS   1 index, 2 user state, the session of each id, then app state (absent where it lives on another node)
-- ARGV   1 echo, 2 and on: session ids
-- Returns {echo, 'found', user state, app state or false, fields of each session: none if it has expired, 'foreign' if
--        its key holds another type of data}

local sessions = {}
for i = 2, #ARGV do
  local fields = redis.pcall('HGETALL', KEYS[i + 1])
  if fields.err then
    if not string.find(fields.err, 'WRONGTYPE', 1, true) then
      return fields
    end
    fields = 'foreign'
  elseif #fields == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
  sessions[#sessions + 1] = fields
end
local app = KEYS[#ARGV + 2]
return { ARGV[1], 'found', redis.call('HGETALL', KEYS[2]), app and redis.call('HGETALL', app) or false, sessions }
