-- Names a key of a session by what it holds, given that of its hash: prefix:session:{tag}:id gives prefix:kind:{tag}:id. No prefix
-- has a brace in it.
local function beside(session, kind)
  local brace = string.find(session, '{', 1, true)
  return string.sub(session, 1, brace - 9) .. kind .. ':' .. string.sub(session, brace)
end
