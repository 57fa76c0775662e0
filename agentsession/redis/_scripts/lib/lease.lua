-- The lease of a session and the line of those who wait for it: two fields of its hash, `lease` and `line`, made of words.
--
-- While nobody has the lease, and nothing is left to close, `lease` is the newest token alone. Else it is, with '!' before it if
-- the lease is exclusive: token, owner or '-', run, ends, ttl, after, stop or '-', stopped, resumed, and what is to be closed: '-',
-- or run, after and stop, with commas between them. Moments are in microseconds, a ttl in milliseconds; `ends` is 0 while the turn
-- waits for somebody; `after` is the position after which the turn's events come, `resumed` the one at which it went on, or '-'.
-- A place in line is: owner, run, 'i' if it interrupts, 'q' if it queues or 's' if it was superseded, kept until; with commas
-- between them, and spaces between places. An owner begins with the name of the inbox where it is told of news, and a dot; a run is
-- quoted.

local place_kept, longest_line = 10000000, 100

-- Returns nil if the field is damaged. `count` is the number of events ever stored: a turn that waited, and whose new holder has
-- stored nothing until its lease ran out, waits again.
local function read_lease(raw, count, now)
  local lease, words = { token = 0 }, {}
  for word in string.gmatch(raw or '0', '[^ !]+') do
    words[#words + 1] = word
  end
  lease.token = tonumber(words[1])
  if #words > 1 then
    lease.owner = words[2] ~= '-' and words[2] or nil
    lease.run, lease.ends, lease.ttl, lease.after = words[3], tonumber(words[4]), tonumber(words[5]), tonumber(words[6])
    lease.stop, lease.stopped, lease.resumed = words[7], tonumber(words[8]), tonumber(words[9])
    lease.left = words[10] ~= '-' and words[10] or nil
    lease.exclusive = string.byte(raw) == 33
    if #words ~= 10 or not (lease.ends and lease.ttl and lease.after and lease.stopped) or
      (lease.left and not string.find(lease.left, '^[^,]+,%d+,[^,]+$')) then
      return nil
    end
    if lease.stopped > now then
      lease.stopped, lease.is_new = now, true -- since the clock went back
    end
    if lease.owner and lease.ends ~= 0 and lease.ends < now and lease.resumed == count then
      lease.ends, lease.is_new = 0, true
    end
  end
  return lease.token and lease or nil
end

local function write_lease(session, lease)
  local text = string.format('%.0f', lease.token)
  if lease.owner or lease.left then
    text = string.format('%s%s %s %s %.0f %.0f %.0f %s %.0f %s %s', lease.exclusive and '!' or '', text, lease.owner or '-',
      lease.run, lease.ends, lease.ttl, lease.after, lease.stop, lease.stopped,
      lease.resumed and string.format('%.0f', lease.resumed) or '-', lease.left or '-')
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
    local place = { owner = owner, run = run, how = how, kept = tonumber(kept) }
    if now <= place.kept and place.kept <= now + 2 * place_kept then
      line[#line + 1] = place
    end
  end
  return line
end

local function write_line(session, line)
  local places = {}
  for i, place in ipairs(line) do
    places[i] = string.format('%s,%s,%s,%.0f', place.owner, place.run, place.how, place.kept)
  end
  if #places > 0 then
    redis.call('HSET', session, 'line', table.concat(places, ' '))
  else
    redis.call('HDEL', session, 'line')
  end
end

-- Returns the place of whoever is next, and how many wait.
local function first_of(line)
  local first, number = nil, 0
  for _, place in ipairs(line) do
    if place.how ~= 's' then
      first, number = first or place, number + 1
    end
  end
  return first, number
end

-- Tells an owner that there is news. That may be denied, or get lost: whoever waits asks again in any case.
local function tell(session, owner)
  local brace = string.find(session, '{', 1, true)
  local inbox = string.match(owner, '^[^.]+')
  redis.pcall('PUBLISH', string.sub(session, 1, brace - 9) .. 'inbox:' .. inbox, #owner .. ' ' .. owner)
end

local function tell_the_next(session, now)
  local first = first_of(read_line(session, now))
  if first then
    tell(session, first.owner)
  end
  return first
end

-- What was asked for happens to a lease that is held, in the step of a write: 'begin', 'end', 'wait', 'close' or 'keep'. `seq` is the
-- position of the first event that was written, now or before.
local function after_write(session, lease, also, now, seq)
  if also == 'end' then
    lease.owner, lease.exclusive = nil, false
    write_lease(session, lease)
    tell_the_next(session, now)
  elseif also == 'wait' then
    lease.ends = 0
    write_lease(session, lease)
    tell_the_next(session, now) -- who interrupts need not wait for a turn that waits
  elseif also == 'close' then
    lease.left = nil
    write_lease(session, lease)
  elseif also == 'begin' and seq <= lease.after then
    lease.after = seq - 1
    write_lease(session, lease)
  end
end
