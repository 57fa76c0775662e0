--! keys: session, events, ids, index, user, calls
--! write: id, user_id, session_id, take, origin, origin_life, origin_at, beginning, news, session_ttl, user_ttl, app_ttl, refresh, after, since, last, most, harmless
--! uses once, activity, session_expiry, scope_expiry, prolong, changes, events, snapshot, news
-- Makes a session, or takes one that is there, or makes a copy of one.
--
-- KEYS   then app state, the application's users and its calls (absent where they live on another node)
-- ARGV   `id` is the call's, and the incarnation of a session that it makes; `take` is '1' to take a session that is there;
--        `origin` is the id of the session to copy, or '', `origin_life` the incarnation that is expected of it, or '', and
--        `origin_at` the position with which the copy ends, or ''; `beginning` is how a session begins that was kept elsewhere
--        (agentsession.backend.Beginning): its four numbers, less one the third, or ''; `news` is how followers are told; `refresh` is '1' to move expiry when one is taken; `after` to
--        `harmless` are the window of its events (lib/snapshot.lua, lib/events.lua); then the changes
-- Returns {echo, 'created', now, snapshot, oldest ids of the index or none, some users of the application or none} also if this
--        call made it before,
--        {echo, 'found', now, snapshot}, {echo, 'exists', now}, {echo, 'gone', now, 'made' or 'taken'} if this call made it, or
--        took it, and somebody has deleted it since, {echo, 'late', now}, {echo, 'large', now, 'made' if this
--        call made it or '', number of events, bytes or more},
--        {echo, 'foreign', now, version or ''}, or as lib/fork.lua
--
-- Now and then a creation also returns the oldest entries of the index, for the caller to prune those that
-- have expired (prune.lua): so that the index of a user who never lists stays as small as it should.

local call, app, users, app_calls = redis.call, KEYS[7], KEYS[8], KEYS[9]
local ttl = tonumber(session_ttl)

local function read()
  return snapshot(session, events, user, app, tonumber(after), since, last, tonumber(most), tonumber(harmless))
end

local known, now = standing(calls, id, deadline)
if known == 'late' then
  return { echo, 'late', now }
elseif known == 'refused' and take ~= '1' and origin == '' then
  return { echo, 'exists', now }
end

if call('EXISTS', session) == 1 then
  local meta = call('HMGET', session, 'v', 'incarnation', 'past')
  if meta[1] ~= '1' then
    if not known then
      remember_refused(calls, id, deadline, now)
    end
    return { echo, 'foreign', now, meta[1] or '' }
  end
  local own = meta[2] == id
  if not own and known == 'ran' then
    return { echo, 'gone', now, 'made' }
  elseif not own and not known then
    remember_refused(calls, id, deadline, now)
  end
  if not own and take ~= '1' then
    return { echo, 'exists', now }
  end
  local view, count, size = read()
  if not view then
    return { echo, 'large', now, own and 'made' or '', count, size }
  end
  if not own and refresh == '1' then
    prolong_session(ttl, session, events, ids, index, meta[3])
    prolong(tonumber(user_ttl), user)
    if app then
      prolong(tonumber(app_ttl), app)
    end
  end
  return { echo, own and 'created' or 'found', now, view, {}, {} }
end
local copy, refusal
if origin ~= '' then
  --! uses fork
  refusal, copy = look_at_origin(index, origin, origin_life, origin_at, now)
end
if known == 'ran' or (known and origin == '') then
  return { echo, 'gone', now, known == 'ran' and 'made' or 'taken' }
elseif known and not refusal then
  return { echo, 'missing', now } -- as the session to copy was then, mostly
elseif refusal then
  if not known then
    remember_refused(calls, id, deadline, now)
  end
  return refusal
end

-- These fail before anything is written if they hold another type of data.
local top = call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
call('HLEN', user)
if app then
  call('HLEN', app)
  call('ZCARD', users)
end
remember(calls, id, deadline, now)
local present = moment_of(session_id, now, 0, top)
call('ZADD', index, present, session_id)
-- Left over if the server evicted the session's hash alone; a new session must not inherit them.
--! uses past
call('UNLINK', events, ids, past_keys(session))
call('HSET', session, 'v', 1, 'incarnation', id, 'created', present, 'updated', present, 'horizon', present,
  'revision', 1, 'count', 0, 'last', 0)

local past = copy and copy(session, events, ids)
if beginning ~= '' then
  local created, trimmed, begins, back = string.match(beginning, '^(%d+) (%d+) (%d+) (%d+)$')
  call('HSET', session, 'created', created ~= '0' and created or present, 'count', trimmed)
  if begins ~= '0' or back ~= '0' then
    call('HSET', session, 'past', begins .. ' ' .. back)
    past = true
  end
  if back ~= '0' then
    local taken = past_keys(session)
    call('ZADD', taken, back, trimmed)
  end
end
local of_user, of_app = apply_changes(first, (#ARGV - first + 1) / 3, session, user, app)
if of_user then
  move_scope_expiry(user, tonumber(user_ttl))
end
if of_app then
  move_scope_expiry(app, tonumber(app_ttl))
end

local oldest = {}
if ttl > 0 then
  move_session_expiry(session, events, ids, index, ttl, false, past)
  if call('ZCARD', index) % 64 == 0 then
    oldest = call('ZRANGE', index, 0, 127)
  end
else
  -- This session lives for ever, so the index does, whatever another configuration had set.
  call('PERSIST', index)
end
local some = {}
if users then
  --! uses enlist
  some = enlist(users, app_calls, user_id, now, ttl, of_user and tonumber(user_ttl) or ttl)
end
tell_followers(news, index, session_id, 'made')
return { echo, 'created', now, read(), oldest, some }
