--! keys: index
--! read: news, session_id
--! uses news
-- Hands bytes on to those who follow a session now, or its user.
--
-- ARGV   `news` is how followers are told; then the bytes
-- Returns {echo, 'told', how many connections were told on this node} or {echo, 'denied'}

local told = tell_followers(news, index, session_id, 'chunk ' .. ARGV[first])
if type(told) ~= 'number' then
  return { echo, 'denied' }
end
return { echo, 'told', told }
