-- A user's index is in the order of writes, also after the server's clock went back; so is the time that a write gets.
-- `top` is the head of the index with its score, as ZREVRANGE gives it; `updated` is the time of the session's last write.
local function moment_of(session_id, now, updated, top)
  local moment = math.max(now, updated + 1)
  if top[1] and top[1] ~= session_id then
    moment = math.max(moment, top[2] + 1)
  end
  return moment
end
