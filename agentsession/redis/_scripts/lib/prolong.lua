-- Moves the expiry of what was read, ahead only. A copy of a read may come late, when a session was deleted and made anew: by
-- a read nothing is given an expiry that has none, nothing loses its own, and nothing goes earlier. A ttl is in milliseconds; 0
-- is for ever.
local function prolong(ttl, ...)
  if ttl > 0 then
    for _, key in ipairs({ ... }) do
      local left = redis.call('PTTL', key)
      if left >= 0 and left < ttl then
        redis.call('PEXPIRE', key, ttl)
      end
    end
  end
end

-- The same for a session; `past` is whether it has the keys of lib/past.lua.
local function prolong_session(ttl, session, events, ids, index, past)
  prolong(ttl, session, events, ids, index)
  if past then
    --! uses past
    prolong(ttl, past_keys(session))
  end
end
