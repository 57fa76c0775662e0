-- Puts a session at the head of its user's index, which is in the order of writes, also after the server's clock went back:
-- `top` is the head with its score, as ZREVRANGE gives it.
local function move_to_the_top(index, session_id, now, top)
  local score = now
  if top[2] and top[2] + 0 >= score then
    score = top[2] + 1
  end
  redis.call('ZADD', index, string.format('%d', score), session_id)
end
