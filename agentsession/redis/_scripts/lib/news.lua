-- Tells those who follow a session, or its user, what has happened. `news` is the command for it, which a cluster has one of its own
-- for. The channel has the name of the user's list of sessions, so that it is in the same slot. What is told is the length of the
-- session's id in bytes, a space, the id, and what happened (agentsession.backend.News): 'made', 'written' or 'deleted'; 'began' or
-- 'ended', a space and the turn; or 'chunk', a space and bytes. append.lua then tells, at the end of its step, of the events
-- themselves, if somebody listens, none is stored already, and they are not large: 'events', the session's incarnation, the position
-- of the first one, and each payload after its length in bytes; a space follows each word and each length. So one that nobody follows
-- costs nothing more, and who follows need not read them.
--
-- A cluster that has no such command, before version 7, tells all of its nodes, but of no events themselves. Where it is denied, those who follow see when they
-- look for themselves.

local function tell_followers(news, index, session_id, what)
  local message = #session_id .. ' ' .. session_id .. what
  local told = redis.pcall(news, index, message)
  if type(told) == 'table' and news == 'SPUBLISH' then
    told = redis.pcall('PUBLISH', index, message)
  end
  return told
end
