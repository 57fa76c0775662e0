--! keys: users, calls
--! write: id, session_ttl, user_ttl
--! uses once, enlist
-- Puts users on the list of an application's users, on a cluster, before anything of theirs is made in their own slot.
--
-- ARGV   a ttl is that of what is to be made, or that of the other; then the ids of the users
-- Returns {echo, 'ok', now, some of the list now and then} or {echo, 'late', now}
--
-- Nobody may take the user out before it is made. So the user is protected for as long as that may happen, and a minute more:
-- as long as others may take who have seen that nothing was there (drop_users.lua).

local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now, {} }
end
redis.call('ZCARD', users) -- fails before anything is written if it holds another type of data
remember(calls, id, deadline, now)
local some = {}
for i = first, #ARGV do
  redis.call('ZADD', calls, 'GT', deadline + margin, '+' .. ARGV[i])
  some = enlist(users, calls, ARGV[i], now, tonumber(session_ttl), tonumber(user_ttl))
end
return { echo, 'ok', now, some }
