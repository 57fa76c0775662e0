--! keys: users, calls
--! write: id, session_ttl, user_ttl, found
--! uses once, enlist
-- Puts users on the list of an application's users: on a cluster, before anything of theirs is made in their own slot; or since
-- they were found, with everything that the application has.
--
-- ARGV   a ttl is that of what is to be made, or that of the other; `found` is '1' if the users were found, 'all' if they are
--        the last of those that there are; then the ids of the users
-- Returns {echo, 'ok', now, some of the list now and then} or {echo, 'late', now}
--
-- Where something is to be made, nobody may take the user out before it is. So the user is protected for as long as that may
-- happen, and as long again as others may take who have seen that nothing was there.
--
-- That a list is complete is known by the empty id, which is first on it. A list of nothing else is kept for an hour, so that
-- an application without users is not looked for each time.

local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now, {} }
end
redis.call('ZCARD', users) -- fails before anything is written if it holds another type of data
remember(calls, id, deadline, now)
local some = {}
for i = first, #ARGV do
  if found == '' then
    remember(calls, '+' .. ARGV[i], deadline, now)
  end
  some = enlist(users, ARGV[i], now, tonumber(session_ttl), tonumber(user_ttl))
end
if found == 'all' then
  redis.call('ZADD', users, 0, '')
  if redis.call('ZCARD', users) == 1 then
    redis.call('PEXPIRE', users, 3600000)
  end
end
return { echo, 'ok', now, some }
