--! keys: session, events, ids, index
--! write: incarnation, revision, session_id, scopes, lease, limit, news, session_ttl, user_ttl, app_ttl
-- Adds events to the end of a session's log with their changes to state, or does nothing at all.
--
-- KEYS   then user state and app state, as far as `scopes` names them: '', 'u', 'a' or 'ua'; an 'r' says that the first event is the
--        mark of a rewind
-- ARGV   `incarnation` and `revision` are what is expected, or ''; `lease` is who holds the session's lease and what becomes of it
--        then (lib/lease.lua), or '' outside of turns; `limit` is how many events the log holds at most, or ''; `news` is how
--        followers are told (lib/news.lua); then for each event: id, time in microseconds, payload, number of changes, these
--        changes (lib/changes.lua); a mark has one change: 'r', the position to go back to, and '1' if state goes back too, '' if
--        not, or 'copy' (agentsession.backend.Entry)
-- Returns {echo, 'ok', now, revision, last position, updated, incarnation, position of the oldest event if the limit has trimmed some
--        or 0, for each event its position, or, if it was stored before, its position, its payload or false, and when},
--        {echo, 'late', now}, {echo, 'early' or 'again', now, when it may be issued}, {echo, 'missing', now}, {echo, 'replaced', now},
--        {echo, 'conflict', now, revision}, {echo, 'back', now, problem} if the log cannot go back to there (lib/rewind.lua),
--        {echo, 'lost', now} if the lease is not held, {echo, 'busy', now, run, when it ends} if another one is exclusive,
--        {echo, 'foreign', now, version or ''} or {echo, 'damaged', now}
--
-- No copy of a call may do anything once the call is over. A copy that comes after its deadline is late. One of an append
-- that was carried out is known by the ids of its events, as long as the session lives and remembers them. One that was
-- issued before the `horizon`, which is when the session was made or the oldest id that it remembers was stored, could be of
-- another life of the session or of a forgotten event: it is too early, and only whoever sent no copy before asks again. One that
-- was issued before the last refusal which may not stand for ever could be a copy of the call that was refused. Nothing of it is
-- stored, so it may be issued again. The moment of that refusal stands behind the horizon, in the same field.
--
-- Redis keeps what a script wrote before an error, so whatever could fail (a key of another type, no memory, no rights) is
-- touched before the first write, or undone. An out-of-memory error comes at the first write or never.
--
-- This script is most of what a busy server does, so functions are made only where they are needed. Numbers go to commands
-- as they are: newer servers print them faster than string.format does, older ones nearly so.

local call = redis.call

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
if now > deadline then
  return { echo, 'late', now }
end
local user, app, rewinds
if scopes ~= '' then
  rewinds = string.find(scopes, 'r', 1, true)
  if string.find(scopes, 'u', 1, true) then
    user = KEYS[5]
    call('HLEN', user)
  end
  if string.find(scopes, 'a', 1, true) then
    app = KEYS[#KEYS]
    call('HLEN', app)
  end
end

local meta = call('HMGET', session, 'v', 'incarnation', 'revision', 'count', 'last', 'updated', 'horizon', 'ttl', 'lease', 'past', 'cut')
if meta[1] ~= '1' then
  if not meta[1] and call('EXISTS', session) == 0 then
    return { echo, 'missing', now }
  end
  return { echo, 'foreign', now, meta[1] or '' }
end
if incarnation ~= '' and incarnation ~= meta[2] then
  return { echo, 'replaced', now }
end
local current, before, last = tonumber(meta[3]), tonumber(meta[4]), tonumber(meta[5])
local updated, horizon, refused = tonumber(meta[6]), tonumber(meta[7]), false
if not horizon and meta[7] then
  horizon, refused = string.match(meta[7], '^(%d+) (%d+)$')
  horizon, refused = tonumber(horizon), tonumber(refused)
end
-- What is no number at all, not a whole one, or negative, was not written by us.
if not (meta[2] and current and before and last and updated and horizon) or before % 1 ~= 0 or last % 1 ~= 0 or before < 0 then
  return { echo, 'damaged', now }
end
if issued < horizon then
  return { echo, 'early', now, string.format('%.0f', horizon) }
end

local argc = #ARGV
-- Most sessions have no lease that matters here, and most turns only go on: then no function is made for it.
local refusal, may_change, after_lease = false, false, false
local goes_on, what = false, 'written'
if lease ~= '' and meta[9] then
  local owner, ends, ttl, left = string.match(meta[9], '^!?%d+ (%S+) %S+ (%d+) (%d+) %d+ %S+ %d+ %S+ (%S+)$')
  goes_on = owner and lease == owner .. ' keep' and left == '-' and now <= ends + 0 and ends + 0 <= now + 2000 * ttl
end
if not goes_on and (lease ~= '' or (meta[9] and string.byte(meta[9]) == 33)) then
  --! uses lease
  local held = read_lease(meta[9], before, now)
  local owner, also = string.match(lease, '^(%S+) (%S+)$')
  if not held then
    return { echo, 'damaged', now }
  elseif not owner then
    if held.ends ~= 0 and is_held(held, now) then
      refusal, may_change = { echo, 'busy', now, held.run, held.ends }, true
    end
  elseif not has_lease(held, owner, now) then
    refusal = { echo, 'lost', now }
  elseif held.left and also ~= 'close' then
    refusal, may_change = { echo, 'lost', now }, true
  elseif also ~= 'keep' then
    local run = held.run
    if also == 'close' then
      run = held.left and string.match(held.left, '^[^,]+')
    end
    if run and also ~= 'begin' then
      what = 'ended ' .. run
    end
    after_lease = function(seq)
      after_write(session, held, also, now, seq)
    end
  end
end
if not refusal and revision ~= '' and revision ~= meta[3] then
  refusal, may_change = { echo, 'conflict', now, current }, tonumber(revision) > current
end
local go_back
if rewinds and not refusal and not call('ZSCORE', ids, ARGV[first]) then
  --! uses rewind
  refusal, may_change, go_back = look_back(session, events, ids, lease, meta[9], meta[10], before, now)
end
if refusal or (refused and issued < refused) then
  -- A repeat is answered as the first time was, whatever is so by now.
  local at = first
  while at <= argc and call('ZSCORE', ids, ARGV[at]) do
    at = at + 4 + 3 * ARGV[at + 3]
  end
  if at <= argc or argc < first then
    if not refusal then
      return { echo, 'again', now, string.format('%.0f', refused) }
    end
    if may_change then
      -- What stands against it may be gone later, and a copy of this call come after that.
      call('HSET', session, 'horizon', string.format('%.0f %.0f', horizon, math.max(refused or 0, now + 1)))
    end
    return refusal
  end
end
local top = call('ZREVRANGE', index, '0', '0', 'WITHSCORES')

-- As lib/activity.lua, without a function.
local top_id, stamp = top[1], now
if stamp <= updated then
  stamp = updated + 1
end
if top_id ~= session_id and top_id and top[2] + 0 >= stamp then
  stamp = top[2] + 1
end
local count, number = before, 8
local reply = { echo, 'ok', now, current, before, updated, meta[2], 0 }
local new, added, changing, failure = {}, 0, false, false
local at = first
while at <= argc do
  number = number + 1
  if not changing and ARGV[at + 3] ~= '0' then
    changing = true
    --! uses past
    local _, changes, olds = past_keys(session)
    local touched = redis.pcall('ZCARD', changes)
    if type(touched) == 'number' then
      touched = redis.pcall('HLEN', olds)
    end
    if type(touched) ~= 'number' then
      failure = touched
      break
    end
  end
  if call('ZADD', ids, 'NX', stamp + added, ARGV[at]) == 1 then
    local score = ARGV[at + 1] + 0
    if score > now then
      score = now
    end
    if score <= last then
      score = last + 1
    end
    added = added + 1
    new[added] = at
    count, last = count + 1, score
    reply[number] = count
    local logged = redis.pcall('ZADD', events, 'NX', score, ARGV[at + 2])
    if logged ~= 1 then
      -- Not logged means: it is in the log, and its id is lost. It is not this call's to take out.
      failure = logged == 0 and { echo, 'damaged', now } or logged
      redis.pcall('ZREM', ids, ARGV[at])
      added = added - 1
      break
    end
  else
    --! uses position
    local position, rank = position_of(ARGV[at], count, events, ids)
    reply[number] =
      { position, rank >= 0 and call('ZRANGE', events, rank, rank)[1] or false, call('ZSCORE', ids, ARGV[at]) }
  end
  at = at + 4 + 3 * ARGV[at + 3]
end
if failure then
  for i = 1, added do
    redis.pcall('ZREM', ids, ARGV[new[i]])
    redis.pcall('ZREM', events, ARGV[new[i] + 2])
  end
  return failure
end
if after_lease then
  after_lease(type(reply[9]) == 'table' and reply[9][1] or reply[9])
end
local told
if count > before or what ~= 'written' then
  -- As lib/news.lua, without a function.
  told = redis.pcall(news, index, #session_id .. ' ' .. session_id .. what)
  if type(told) == 'table' and news == 'SPUBLISH' then
    redis.pcall('PUBLISH', index, #session_id .. ' ' .. session_id .. what)
  end
end
if count == before then
  if number > 8 then
    -- A repeat writes too, though nothing new: see lib/once.lua.
    call('HSET', session, 'v', '1')
  end
  return reply
end

reply[4], reply[5], reply[6] = current + 1, count, stamp + added - 1
-- The head of the index need not be moved, unless others could come to stand between its place and its time.
if top_id ~= session_id or reply[6] > now then
  call('ZADD', index, reply[6], session_id)
end
local past = meta[10]
if go_back then
  go_back()
  past = true
end
if changing then
  --! uses changes, scope_expiry
  local of_user, of_app, noted = false, false, false
  for i = go_back and 2 or 1, added do
    local users, apps, some = apply_changes(new[i] + 4, ARGV[new[i] + 3] + 0, session, user, app, before + i)
    of_user, of_app, noted = of_user or users, of_app or apps, noted or some
  end
  if noted and not past then
    call('HSET', session, 'past', '0 0')
    past = true
  end
  if of_user then
    move_scope_expiry(user, tonumber(user_ttl))
  end
  if of_app then
    move_scope_expiry(app, tonumber(app_ttl))
  end
end

call('HSET', session, 'revision', reply[4], 'count', count, 'last', last, 'updated', reply[6])

if limit ~= '' and count > limit + 0 then
  -- All up to this position are over the limit, unless they have left before.
  local most, gone = limit + 0, count - limit
  if meta[11] and gone < meta[11] + 0 then
    if call('ZREMRANGEBYRANK', events, '0', -most - 1) > 0 then
      reply[8] = gone + 1
    end
  else
    --! uses trim
    reply[8] = trim(session, events, count, most)
  end
  -- What else may go is looked at now and then: how much longer it is remembered is nobody's concern.
  local most_ids = most + 1000 -- REMEMBERED_IDS of agentsession.backend
  if count % 64 == 0 or added > 1 then
    if past then
      --! uses past, forget
      forget(session, count - call('ZCARD', events))
    end
    if count > most_ids and call('ZREMRANGEBYRANK', ids, '0', -most_ids - 1) > 0 then
      -- Those that a fork has taken over are older than itself.
      horizon = math.max(horizon, call('ZRANGE', ids, '0', '0', 'WITHSCORES')[2] + 0)
      call('HSET', session, 'horizon', string.format(refused and '%.0f %.0f' or '%.0f', horizon, refused or 0))
    end
  end
end
if session_ttl ~= '0' or meta[8] then
  --! uses session_expiry
  move_session_expiry(session, events, ids, index, tonumber(session_ttl), meta[8], past)
end
-- Where somebody listens, the events themselves are told too (lib/news.lua), last of all: nothing that fails may come after that.
-- Who follows reads a mark, and what is large, from the log.
if type(told) == 'number' and told > 0 and added == number - 8 and not go_back then
  local words, size, most = { #session_id .. ' ' .. session_id .. 'events ' .. meta[2] .. ' ' .. before + 1 .. ' ' }, 0, 16384
  for i = 1, added do
    local payload = ARGV[new[i] + 2]
    size = size + #payload
    if size > most then
      break
    end
    words[i + 1] = #payload .. ' ' .. payload
  end
  if size <= most then
    redis.pcall(news, index, table.concat(words))
  end
end
return reply
