--! keys: index, user
--! read:
-- Reads the sessions of a page without their events, and takes those that have expired out of the index.
--
-- KEYS   then the session of each id, then app state (absent where it lives on another node)
-- ARGV   then the ids
-- Returns {echo, 'found', user state, app state or false, fields of each session: none if it has expired, 'foreign' if
--        its key holds another type of data}

local sessions = {}
for i = first, #ARGV do
  local fields = redis.pcall('HGETALL', KEYS[i - first + 3])
  if fields.err then
    if not string.find(fields.err, 'WRONGTYPE', 1, true) then
      return fields
    end
    fields = 'foreign'
  elseif #fields == 0 then
    redis.call('ZREM', index, ARGV[i])
  end
  sessions[#sessions + 1] = fields
end
local app = KEYS[#sessions + 3]
return { echo, 'found', redis.call('HGETALL', user), app and redis.call('HGETALL', app) or false, sessions }
