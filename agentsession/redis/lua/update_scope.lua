--! uses scope_expiry, changes
-- Changes the state of an application or of a user.
--
-- KEYS   1 the state, 2 steps taken (only with a step)
-- ARGV   1 echo, 2 ttl, 3 the step or '', 4 steps to remember, then the changes, all of scope s
-- Returns {echo, 'ok'}
--
-- A step is the part of a session's write that lives in this slot. It is taken once: a repeat, which must
-- not bring old values back, finds it among those remembered.

local steps, step = KEYS[2], ARGV[3]
if step ~= '' then
  redis.call('HLEN', KEYS[1])
  local time = redis.call('TIME')
  if redis.call('ZADD', steps, 'NX', time[1] * 1000000 + time[2], step) == 0 then
    return { ARGV[1], 'ok' }
  end
  redis.call('ZREMRANGEBYRANK', steps, 0, -tonumber(ARGV[4]) - 1)
  move_scope_expiry(steps, tonumber(ARGV[2]))
end
apply_changes(5, (#ARGV - 4) / 3, KEYS[1])
move_scope_expiry(KEYS[1], tonumber(ARGV[2]))
return { ARGV[1], 'ok' }
