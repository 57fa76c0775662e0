-- Changes to state travel in ARGV as triples: target, field, value. The target's letter names the scope
-- (s session, u user, a app), a capital one deletes the field. One call a change: unpack() ends at some 8,000 values.

-- Returns whether state of the user is among them, and whether state of the application is.
local function apply_changes(first, count, session, user, app)
  local of_user, of_app = false, false
  for i = first, first + 3 * (count - 1), 3 do
    local target = ARGV[i]
    local scope = string.lower(target)
    local key = scope == 's' and session or scope == 'u' and user or app
    of_user, of_app = of_user or scope == 'u', of_app or scope == 'a'
    if target == scope then
      redis.call('HSET', key, ARGV[i + 1], ARGV[i + 2])
    else
      redis.call('HDEL', key, ARGV[i + 1])
    end
  end
  return of_user, of_app
end
