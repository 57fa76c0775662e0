--! read:
--! uses session_name
-- Looks of which users anything is left: a session that has not expired, or state. Sessions that have expired are taken out of
-- the index in passing.
--
-- KEYS   for each user the index of sessions, and the state
-- Returns {echo, 'found', for each user 1 or 0}

local call = redis.call

local function has_sessions(index)
  local seen = 0
  while seen < 1000 do
    local listed = call('ZREVRANGE', index, 0, 15)
    for i = 1, #listed do
      if call('EXISTS', session_name(index, listed[i])) == 1 then
        return true
      end
      call('ZREM', index, listed[i])
    end
    if #listed < 16 then
      return false
    end
    seen = seen + #listed
  end
  return true -- Another time, in another thousand.
end

local reply = { echo, 'found' }
for i = 1, #KEYS, 2 do
  local left = call('EXISTS', KEYS[i + 1]) == 1 or has_sessions(KEYS[i])
  reply[#reply + 1] = left and 1 or 0
end
return reply
