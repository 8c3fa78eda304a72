"""The scripts of `RedisState`, each of which the server runs as one step.

Keys, under a prefix:

=============  ==================================================================================================
`c:<id>`       hash: `settings`, `owner`, `deadline`, `stored`, `memory`; `claim`, `until` while a gateway has the call
`i:<id>`       list: the messages of the create
`h:<id>`       list: the history, whose last message has the number `stored` - 1
`due`          sorted set: ids by deadline
`taken`        hash: `contexts`, `memory`, of all contexts
=============  ==================================================================================================

A message is its bytes of memory, a space, and its JSON. `ARGV` begins with the prefix, an id, and the gateways' time in
seconds, by which contexts expire; claims end by the server's own clock, in milliseconds. Every script may be run twice
in a row: a connection may break before the answer.
"""

from typing import Final

__all__ = ["APPEND", "CLAIM", "CREATE", "FIND", "FORGET", "RELEASE", "RENEW", "TOUCH"]

_BEGIN: Final = """
local prefix, id, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local function claimed(key)
    local until_ = redis.call('HGET', key, 'until')
    return until_ and tonumber(until_) > clock
end
local function alive(id)
    local deadline = redis.call('HGET', prefix .. 'c:' .. id, 'deadline')
    return deadline and (tonumber(deadline) > now or claimed(prefix .. 'c:' .. id))
end
local function remove(id)
    local memory = redis.call('HGET', prefix .. 'c:' .. id, 'memory')
    if memory then
        redis.call('HINCRBY', prefix .. 'taken', 'contexts', -1)
        redis.call('HINCRBY', prefix .. 'taken', 'memory', -memory)
    end
    redis.call('DEL', prefix .. 'c:' .. id, prefix .. 'i:' .. id, prefix .. 'h:' .. id)
    redis.call('ZREM', prefix .. 'due', id)
end
local function postpone(id, deadline)
    local key = prefix .. 'c:' .. id
    local before = redis.call('HGET', key, 'deadline')
    if before and tonumber(before) < tonumber(deadline) then
        redis.call('HSET', key, 'deadline', deadline)
        redis.call('ZADD', prefix .. 'due', deadline, id)
    end
end
local key = prefix .. 'c:' .. id
"""

# token, settings, deadline, memory, most contexts, most memory, owner, messages… -> '', 'taken', 'contexts' or 'memory'
CREATE: Final = f"""{_BEGIN}
for _, due in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now, 'LIMIT', 0, 100)) do
    if alive(due) then redis.call('ZADD', prefix .. 'due', now + 60, due) else remove(due) end
end
local made = redis.call('HGET', key, 'made')
if made then
    if made == ARGV[4] then return '' end
    return 'taken'
end
local contexts = tonumber(redis.call('HGET', prefix .. 'taken', 'contexts') or 0)
local memory = tonumber(redis.call('HGET', prefix .. 'taken', 'memory') or 0)
if contexts >= tonumber(ARGV[8]) then return 'contexts' end
if memory + ARGV[7] > tonumber(ARGV[9]) then return 'memory' end
redis.call('HSET', key, 'made', ARGV[4], 'settings', ARGV[5], 'deadline', ARGV[6], 'memory', ARGV[7], 'stored', 0,
    'owner', ARGV[10])
for place = 11, #ARGV do redis.call('RPUSH', prefix .. 'i:' .. id, ARGV[place]) end
redis.call('ZADD', prefix .. 'due', ARGV[6], id)
redis.call('HINCRBY', prefix .. 'taken', 'contexts', 1)
redis.call('HINCRBY', prefix .. 'taken', 'memory', ARGV[7])
return ''
"""

# owner -> settings, deadline, stored, initial messages, history
FIND: Final = f"""{_BEGIN}
if (redis.call('HGET', key, 'owner') or '') ~= ARGV[4] then return false end
if not alive(id) then
    remove(id)
    return false
end
local found = redis.call('HMGET', key, 'settings', 'deadline', 'stored')
local initial = redis.call('LRANGE', prefix .. 'i:' .. id, 0, -1)
return {{found[1], found[2], found[3], initial, redis.call('LRANGE', prefix .. 'h:' .. id, 0, -1)}}
"""

# token, lease, known -> nothing if gone; 'busy'; or first, stored, deadline, messages
CLAIM: Final = f"""{_BEGIN}
if not alive(id) then
    remove(id)
    return false
end
if claimed(key) and redis.call('HGET', key, 'claim') ~= ARGV[4] then return {{'busy'}} end
redis.call('HSET', key, 'claim', ARGV[4], 'until', clock + ARGV[5])
local stored = tonumber(redis.call('HGET', key, 'stored'))
local length = redis.call('LLEN', prefix .. 'h:' .. id)
local new = math.min(length, stored - tonumber(ARGV[6]))
local messages = {{}}
if new > 0 then messages = redis.call('LRANGE', prefix .. 'h:' .. id, -new, -1) end
return {{stored - length, stored, redis.call('HGET', key, 'deadline'), messages}}
"""

# token, dropped, deadline, messages… -> whether the turn is stored
APPEND: Final = f"""{_BEGIN}
if redis.call('HGET', key, 'appended') == ARGV[4] then return 1 end
if not claimed(key) or redis.call('HGET', key, 'claim') ~= ARGV[4] then return 0 end
local history, dropped, memory = prefix .. 'h:' .. id, tonumber(ARGV[5]), 0
for place = 7, #ARGV do
    redis.call('RPUSH', history, ARGV[place])
    memory = memory + string.match(ARGV[place], '^%d+')
end
if dropped > 0 then
    for _, message in ipairs(redis.call('LRANGE', history, 0, dropped - 1)) do
        memory = memory - string.match(message, '^%d+')
    end
    redis.call('LTRIM', history, dropped, -1)
end
redis.call('HINCRBY', key, 'stored', #ARGV - 6)
redis.call('HINCRBY', key, 'memory', memory)
redis.call('HINCRBY', prefix .. 'taken', 'memory', memory)
redis.call('HSET', key, 'appended', ARGV[4])
redis.call('HDEL', key, 'claim', 'until')
postpone(id, ARGV[6])
return 1
"""

# token, deadline or ''
RELEASE: Final = f"""{_BEGIN}
if redis.call('HGET', key, 'claim') ~= ARGV[4] then return end
redis.call('HDEL', key, 'claim', 'until')
if ARGV[5] ~= '' then postpone(id, ARGV[5]) end
"""

# lease, then an id and its token, …
RENEW: Final = f"""{_BEGIN}
for place = 5, #ARGV, 2 do
    local key = prefix .. 'c:' .. ARGV[place]
    if claimed(key) and redis.call('HGET', key, 'claim') == ARGV[place + 1] then
        redis.call('HSET', key, 'until', clock + ARGV[4])
    end
end
"""

# then an id and its deadline, …
TOUCH: Final = f"""{_BEGIN}
for place = 4, #ARGV, 2 do postpone(ARGV[place], ARGV[place + 1]) end
"""

FORGET: Final = f"""{_BEGIN}
remove(id)
"""
