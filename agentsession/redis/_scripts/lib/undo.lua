-- Takes the state of a session back to how it was right after an event, and `forgets` what was noted since. Only what was noted of
-- `origin` is read, so it may be that of another session (lib/past.lua).
local function undo(session, changes, before, to, forgets)
  local call, seen, after, at = redis.call, {}, string.format('(%.0f', to), 0
  repeat
    local names = call('ZRANGE', changes, after, '+inf', 'BYSCORE', 'LIMIT', at, 1000)
    for i = 1, #names do
      local field = string.sub(names[i], string.find(names[i], ' ', 1, true) + 1)
      if not seen[field] then
        -- The first one after the event says what it was then.
        seen[field] = true
        local old = call('HGET', before, names[i])
        if old == '' then
          call('HDEL', session, field)
        else
          call('HSET', session, field, old)
        end
      end
      if forgets then
        call('HDEL', before, names[i])
      end
    end
    at = at + #names
  until #names < 1000
  if forgets then
    call('ZREMRANGEBYSCORE', changes, after, '+inf')
  end
end
