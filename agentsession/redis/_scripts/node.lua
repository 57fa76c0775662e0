--! keys: near
--! read:
-- Tells which node of a cluster this is, and which slots are its own.
--
-- KEYS   `near` leads the call to the node, and need not exist
-- Returns {echo, 'found', the node's id, the epoch of its slots, the slots}; those on their way to or from it are in brackets

local own = string.match(redis.call('CLUSTER', 'NODES'), '[^\n]*myself[^\n]*')
local node, epoch, slots = string.match(own, '^(%S+) %S+ %S+ %S+ %S+ %S+ (%S+) %S+ ?(.*)$')
return { echo, 'found', node, epoch, slots }
