-- The lease of a session and the line of those who wait for it: two fields of its hash, `lease` and `line`, made of words.
--
-- While nobody has the lease, and nothing is left to close, `lease` is the newest token alone. Else it is, with '!' before it if
-- the lease is exclusive: token, owner or '-', run, ends, ttl, after, stop or '-', stopped, and what is to be closed: '-', or run,
-- after and stop, with commas between them. Moments are in microseconds, a ttl in milliseconds; `ends` is 0 while the turn waits for somebody.
-- A place in line is: owner, run, 'i' if it interrupts or 'q', kept until; with commas between them, and spaces between places.
-- An owner begins with the name of the inbox where it is told of news, and a dot; a run is quoted.

local place_kept, longest_line = 10000000, 100

local function read_lease(raw)
  local lease = { token = 0 }
  if raw then
    local words = {}
    for word in string.gmatch(raw, '[^ !]+') do
      words[#words + 1] = word
    end
    lease.token = tonumber(words[1])
    if #words > 1 then
      lease.owner = words[2] ~= '-' and words[2] or nil
      lease.run, lease.ends, lease.ttl, lease.after = words[3], tonumber(words[4]), tonumber(words[5]), tonumber(words[6])
      lease.stop, lease.stopped = words[7], tonumber(words[8])
      lease.left = words[9] ~= '-' and words[9] or nil
      lease.exclusive = string.byte(raw) == 33
    end
  end
  return lease
end

local function write_lease(session, lease)
  local text = string.format('%.0f', lease.token)
  if lease.owner or lease.left then
    text = string.format('%s%s %s %s %.0f %.0f %.0f %s %.0f %s', lease.exclusive and '!' or '', text, lease.owner or '-', lease.run,
      lease.ends, lease.ttl, lease.after, lease.stop, lease.stopped, lease.left or '-')
  end
  redis.call('HSET', session, 'lease', text)
end

-- Whether the lease has not run out; also where the clock went back meanwhile.
local function is_held(lease, now)
  return lease.owner and (lease.ends == 0 or (now <= lease.ends and lease.ends <= now + 2000 * lease.ttl))
end

-- Whether a claim has the lease, and its turn does not wait for somebody.
local function has_lease(lease, owner, now)
  return lease.owner == owner and lease.ends ~= 0 and is_held(lease, now)
end

local function read_line(session, now)
  local line = {}
  for owner, run, how, kept in string.gmatch(redis.call('HGET', session, 'line') or '', '([^, ]+),([^, ]+),(%a),(%d+)') do
    local place = { owner = owner, run = run, interrupts = how == 'i', kept = tonumber(kept) }
    if now <= place.kept and place.kept <= now + 2 * place_kept then
      line[#line + 1] = place
    end
  end
  return line
end

local function write_line(session, line)
  local places = {}
  for i, place in ipairs(line) do
    places[i] = string.format('%s,%s,%s,%.0f', place.owner, place.run, place.interrupts and 'i' or 'q', place.kept)
  end
  if #places > 0 then
    redis.call('HSET', session, 'line', table.concat(places, ' '))
  else
    redis.call('HDEL', session, 'line')
  end
end

-- Tells an owner that there is news. That may be denied, or get lost: whoever waits asks again in any case.
local function tell(session, owner)
  local brace = string.find(session, '{', 1, true)
  local inbox = string.match(owner, '^[^.]+')
  redis.pcall('PUBLISH', string.sub(session, 1, brace - 9) .. 'inbox:' .. inbox, owner)
end

local function tell_the_next(session, now)
  local line = read_line(session, now)
  if line[1] then
    tell(session, line[1].owner)
  end
end

-- What was asked for happens to a lease that is held, in the step of a write: 'end', 'wait', 'close' or 'keep'.
local function after_write(session, lease, also, now)
  if also == 'end' then
    lease.owner, lease.exclusive = nil, false
    write_lease(session, lease)
    tell_the_next(session, now)
  elseif also == 'wait' then
    lease.ends = 0
    write_lease(session, lease)
  elseif also == 'close' then
    lease.left = nil
    write_lease(session, lease)
  end
end
