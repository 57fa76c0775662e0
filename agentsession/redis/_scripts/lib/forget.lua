-- Forgets what goes back further than to right after the oldest event that is held; `trimmed` is how many came before that one.
local function forget(session, trimmed)
  local call, taken, changes, before = redis.call, past_keys(session)
  call('ZREMRANGEBYSCORE', taken, '-inf', string.format('(%.0f', trimmed))
  local up_to = string.format('%.0f', trimmed + 1)
  repeat
    local names = call('ZRANGE', changes, '-inf', up_to, 'BYSCORE', 'LIMIT', 0, 1000)
    if #names > 0 then
      call('HDEL', before, unpack(names))
      call('ZREM', changes, unpack(names))
    end
  until #names < 1000
end
