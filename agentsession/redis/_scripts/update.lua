--! keys: session, events, ids, index, calls
--! write: id, incarnation, session_id, scopes, lease, news, session_ttl, user_ttl, app_ttl
--! uses once, activity, changes, scope_expiry, session_expiry, news
-- Changes the state of a session, and of its user and its application, without an event.
--
-- KEYS   then user state and app state, as far as `scopes` names them: '', 'u', 'a' or 'ua'
-- ARGV   `lease` is who holds the session's lease, or '' outside of turns; `news` is how followers are told; then the changes (lib/changes.lua); without any, nothing is written
-- Returns {echo, 'ok', now, revision, last position, updated, incarnation, 0}, {echo, 'late', now}, {echo, 'missing', now},
--        {echo, 'replaced', now}, {echo, 'lost', now}, {echo, 'busy', now, run, when it ends} as append.lua, {echo, 'foreign', now, version or ''}, {echo, 'damaged', now}, or {echo, 'gone', now} if it
--        was carried out, and somebody has deleted the session since

local call = redis.call
local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
end
local user, app
if string.find(scopes, 'u') then
  user = KEYS[6]
  call('HLEN', user)
end
if string.find(scopes, 'a') then
  app = KEYS[#KEYS]
  call('HLEN', app)
end

local meta = call('HMGET', session, 'v', 'incarnation', 'revision', 'count', 'last', 'updated', 'horizon', 'ttl', 'lease', 'past')
local revision, count, updated = tonumber(meta[3]), tonumber(meta[4]), tonumber(meta[6])
local refusal
if not meta[1] and call('EXISTS', session) == 0 then
  refusal = { echo, known == 'ran' and 'gone' or 'missing', now }
elseif meta[1] ~= '1' then
  refusal = { echo, 'foreign', now, meta[1] or '' }
elseif incarnation ~= '' and incarnation ~= meta[2] then
  refusal = { echo, known == 'ran' and 'gone' or 'replaced', now }
elseif not (meta[2] and revision and count and tonumber(meta[5]) and updated and string.find(meta[7] or '', '^%d+')) or count % 1 ~= 0 or count < 0 then
  refusal = { echo, 'damaged', now }
elseif known == 'refused' then
  refusal = { echo, 'missing', now } -- as it was then
end
if refusal then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return refusal
end
if not known and (lease ~= '' or (meta[9] and string.byte(meta[9]) == 33)) then
  --! uses lease
  local held = read_lease(meta[9], count, now)
  if not held then
    return { echo, 'damaged', now }
  elseif lease == '' and held.ends ~= 0 and is_held(held, now) then
    refusal = { echo, 'busy', now, held.run, held.ends }
  elseif lease ~= '' and (held.left or not has_lease(held, lease, now)) then
    refusal = { echo, 'lost', now }
  end
end
-- With a mark of its own, since what stands against it may be gone when a copy comes.
local refused = id .. '~'
if refusal then
  remember_refused(calls, refused, deadline, now)
  return refusal
elseif not known and call('ZSCORE', calls, '!' .. refused) then
  return lease == '' and { echo, 'busy', now, '', 0 } or { echo, 'lost', now }
end
if known == 'ran' or #ARGV < first then
  return { echo, 'ok', now, revision, count, updated, meta[2], 0 }
end

-- These fail before anything is written if they hold another type of data.
local top = call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
local _, changed, olds = past_keys(session)
call('ZCARD', changed)
call('HLEN', olds)
remember(calls, id, deadline, now)
local moment = moment_of(session_id, now, updated, top)
call('ZADD', index, moment, session_id)
local of_user, of_app, noted = apply_changes(first, (#ARGV - first + 1) / 3, session, user, app, count + 0.5)
if of_user then
  move_scope_expiry(user, tonumber(user_ttl))
end
if of_app then
  move_scope_expiry(app, tonumber(app_ttl))
end
call('HSET', session, 'revision', revision + 1, 'updated', moment)
if noted and not meta[10] then
  call('HSET', session, 'past', '0 0')
end
move_session_expiry(session, events, ids, index, tonumber(session_ttl), meta[8], noted or meta[10])
tell_followers(news, index, session_id, 'written')
return { echo, 'ok', now, revision + 1, count, moment, meta[2], 0 }
