-- Moves the expiry of a session's keys. A time to live is in milliseconds; 0 is for ever. `recorded` is the `ttl` field of the session:
-- what an earlier write set; `past` is whether it has the keys of lib/past.lua.
-- The index lives as long as the longest-lived session in it: processes may be configured differently while
-- a deployment rolls, so its expiry only moves forward, but where it holds this session alone; and a session that lives for
-- ever keeps it for ever.
local function move_session_expiry(session, events, ids, index, ttl, recorded, past)
  if past and (ttl > 0 or recorded) then
    --! uses past
    for _, key in ipairs({ past_keys(session) }) do
      if ttl > 0 then
        redis.call('PEXPIRE', key, ttl)
      else
        redis.call('PERSIST', key)
      end
    end
  end
  if ttl > 0 then
    redis.call('PEXPIRE', session, ttl)
    redis.call('PEXPIRE', events, ttl)
    redis.call('PEXPIRE', ids, ttl)
    local left = redis.call('PTTL', index)
    if (left >= 0 and left < ttl) or redis.call('ZCARD', index) == 1 then
      redis.call('PEXPIRE', index, ttl)
    elseif left == -1 and not recorded then
      -- It was made without one, and may have been the last.
      --! uses index_expiry
      move_index_expiry(index, ttl)
    end
    if recorded ~= tostring(ttl) then
      redis.call('HSET', session, 'ttl', ttl)
    end
  elseif recorded then
    redis.call('PERSIST', session)
    redis.call('PERSIST', events)
    redis.call('PERSIST', ids)
    redis.call('PERSIST', index)
    redis.call('HDEL', session, 'ttl')
  end
end
