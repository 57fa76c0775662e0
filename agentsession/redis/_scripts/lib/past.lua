--! uses beside
-- What was: three keys of a session, which it has from the first change of its state or the first rewind on. Its field `past` says
-- so. It holds where the log begins, less one, which is the position of the newest rewind to 0; and that of the newest mark, or 0.
--
-- taken    sorted set: what was taken back, as the least number of gaps: the position that the log went back to, score: that of the
--          mark. Between two of them is an event at least, so there are no more than events are held
-- changes  sorted set: the changes of state, each its place and its field, score: its place, which is the position of the event that
--          it came with, or half a step after that of the newest event
-- before   hash: for each of these, what the field held before, or nothing
local function past_keys(session)
  return beside(session, 'taken'), beside(session, 'changes'), beside(session, 'before')
end

-- The server may evict one key of a session and leave the others. What was taken back must not be seen again then.
local function is_whole(taken, past, trimmed)
  local mark = tonumber(string.match(past or '0 0', ' (%d+)$'))
  if not mark or mark <= trimmed then
    return mark ~= nil
  end
  return tonumber(redis.call('ZREVRANGE', taken, 0, 0, 'WITHSCORES')[2]) == mark
end
