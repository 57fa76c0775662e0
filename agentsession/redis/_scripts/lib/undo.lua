-- Calls a function with each change of state that was noted since an event, in the order of their places: the field that it changed,
-- and how it is named in `changes` and `before` (lib/past.lua). Only the first of a field says what it was right after that event.
local function each_change(changes, to, see)
  local call = redis.call
  local at = call('ZCARD', changes) - call('ZCOUNT', changes, string.format('(%.0f', to), '+inf')
  repeat
    local names = call('ZRANGE', changes, at, at + 999)
    for i = 1, #names do
      see(string.sub(names[i], string.find(names[i], ' ', 1, true) + 1), names[i])
    end
    at = at + #names
  until #names < 1000
end

-- Takes the state of a session back to how it was right after an event. What was noted may be that of another session.
local function undo(session, changes, before, to)
  local call, seen = redis.call, {}
  each_change(changes, to, function(field, name)
    if not seen[field] then
      seen[field] = true
      local old = call('HGET', before, name)
      if old == '' then
        call('HDEL', session, field)
      elseif old then
        call('HSET', session, field, old)
      end
    end
  end)
end

-- Forgets what was noted since an event; or where state is left as it is, keeps only what it was then, at the place `mark`.
local function merge(changes, before, to, mark, keeps)
  local call, olds, gone = redis.call, {}, {}
  each_change(changes, to, function(field, name)
    if keeps and olds[field] == nil then
      olds[field] = call('HGET', before, name)
    end
    gone[#gone + 1] = name
  end)
  for i = 1, #gone do
    call('HDEL', before, gone[i])
  end
  call('ZREMRANGEBYSCORE', changes, string.format('(%.0f', to), '+inf')
  for field, old in pairs(olds) do
    local name = string.format('%.1f ', mark) .. field
    call('ZADD', changes, mark, name)
    call('HSET', before, name, old or '')
  end
end
