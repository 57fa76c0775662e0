--! keys: index, calls
--! write: id, incarnation, news
--! uses once, index_expiry, news
-- Deletes sessions, each with all that belongs to it. An index without entries is gone by itself.
--
-- KEYS   then all keys to delete; the first of them is a session if there are ids or an incarnation is expected
-- ARGV   `incarnation` is that of the session to delete, or ''; `news` is how followers are told; then the ids to take out of the index
-- Returns {echo, 'ok', now, 1 if there are any sessions left or 0} or {echo, 'late', now}

local call = redis.call
local known, now = standing(calls, id, deadline)
if known then
  return { echo, known == 'late' and 'late' or 'ok', now, 1 }
end
call('ZCARD', index) -- fails before anything is deleted if it holds another type of data
call('ZREM', calls, id) -- a first write that needs no memory: a full server must delete, so that it can be freed
if incarnation == '' or call('HGET', KEYS[3], 'incarnation') == incarnation then
  for i = 3, #KEYS do
    call('UNLINK', KEYS[i])
  end
  for i = first, #ARGV do
    if call('ZREM', index, ARGV[i]) == 1 then
      tell_followers(news, index, ARGV[i], 'deleted')
    end
  end
  if #ARGV >= first then
    move_index_expiry(index, 0)
  end
end
remember(calls, id, deadline, now)
return { echo, 'ok', now, call('EXISTS', index) }
