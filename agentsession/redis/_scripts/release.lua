--! keys: session, index, calls
--! write: owner, asked, session_id, news
--! uses once, lease, news
-- Gives a lease back, or leaves the line.
--
-- ARGV   `asked` is the id of the newest call that asked for it, of which no copy may take anything afterwards; `news` is how
--        followers are told
-- Returns {echo, 'ok', now} or {echo, 'late', now}
--
-- An owner never asks again afterwards, so that a repeat, or a late copy, finds nothing.

local known, now = standing(calls, asked, deadline)
if now > deadline then
  return { echo, 'late', now }
end
if not known then
  remember_refused(calls, asked, deadline, now)
end
local meta = redis.call('HMGET', session, 'lease', 'count')
local lease = read_lease(meta[1], tonumber(meta[2]), now)
if meta[1] and lease then
  local line, left = read_line(session, now), false
  for i = #line, 1, -1 do
    if line[i].owner == owner then
      table.remove(line, i)
      left = true
    end
  end
  if left then
    write_line(session, line)
  end
  if has_lease(lease, owner, now) then
    after_write(session, lease, 'end', now)
    tell_followers(news, index, session_id, 'ended ' .. lease.run)
  elseif left and not is_held(lease, now) then
    tell_the_next(session, now)
  end
end
return { echo, 'ok', now }
