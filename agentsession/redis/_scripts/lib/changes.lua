-- Changes to state travel in ARGV as triples: target, field, value. The target's letter names the scope
-- (s session, u user, a app), a capital one deletes the field. One call a change: unpack() ends at some 8,000 values.
--! uses past

-- `at` is the place of the changes (lib/past.lua), or false if what was before is not to be noted.
-- Returns whether state of the user is among them, whether state of the application is, and whether something was noted.
local function apply_changes(first, count, session, user, app, at)
  local call = redis.call
  local of_user, of_app, noted, changes, before = false, false, false, false, false
  for i = first, first + 3 * (count - 1), 3 do
    local target, field = ARGV[i], ARGV[i + 1]
    local scope = string.lower(target)
    local key = scope == 's' and session or scope == 'u' and user or app
    of_user, of_app = of_user or scope == 'u', of_app or scope == 'a'
    local new = target == scope and ARGV[i + 2] or ''
    if at and scope == 's' then
      local old = call('HGET', session, field) or ''
      if old ~= new then
        if not changes then
          local _
          _, changes, before = past_keys(session)
        end
        local name = string.format('%.1f ', at) .. field
        if call('ZADD', changes, 'NX', at, name) == 1 then
          call('HSET', before, name, old)
          noted = true
        elseif call('HGET', before, name) == new then
          call('ZREM', changes, name)
          call('HDEL', before, name)
        end
      end
    end
    if target == scope then
      call('HSET', key, field, new)
    else
      call('HDEL', key, field)
    end
  end
  return of_user, of_app, noted
end
