-- Names the key of a session, given its user's index: prefix:sessions:{tag} gives prefix:session:{tag}:id. No prefix and no tag
-- has a brace in it.
local function session_name(index, session_id)
  local brace = string.find(index, '{', 1, true)
  local escaped = string.gsub(session_id, '[%%:{}]', function(c)
    return string.format('%%%02X', string.byte(c))
  end)
  return string.sub(index, 1, brace - 3) .. ':' .. string.sub(index, brace) .. ':' .. escaped
end
