"""The scripts of `RedisState`, each of which the server runs as one step.

Keys, under a prefix:

=============  ==================================================================================================
`c:<id>`       hash: `settings`, `owner`, `deadline`, `stored`, `memory`; `claim`, `until` while a gateway has the call
`i:<id>`       list: the messages of the create
`h:<id>`       list: the history, whose last message has the number `stored` - 1
`due`          sorted set: ids by deadline
`taken`        hash: `contexts`, `memory`, of all contexts
`o:<owner>`    hash: `contexts`, `memory`, of one owner's contexts
`a:<owner>`    sorted set: the calls of an owner that are under way, by the end of the lease
`r:<owner>`    hash: the requests of an owner by the second, those of the last minute
`t:<owner>`    hash: the tokens, likewise
=============  ==================================================================================================

A message is its bytes of memory, a space, and its JSON. `ARGV` begins with the prefix, an id, and the gateways' time in
seconds, by which contexts expire; claims end by the server's own clock, in milliseconds. Every script may be run twice
in a row: a connection may break before the answer.
"""

from typing import Final

__all__ = ["ADMIT", "APPEND", "CLAIM", "CREATE", "FIND", "FORGET", "RELEASE", "RENEW", "TOUCH"]

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
local function take(owner, contexts, memory)
    redis.call('HINCRBY', prefix .. 'taken', 'contexts', contexts)
    redis.call('HINCRBY', prefix .. 'taken', 'memory', memory)
    if not owner or owner == '' then return end
    redis.call('HINCRBY', prefix .. 'o:' .. owner, 'memory', memory)
    local left = redis.call('HINCRBY', prefix .. 'o:' .. owner, 'contexts', contexts)
    if left <= 0 then redis.call('DEL', prefix .. 'o:' .. owner) end
end
local function taken(key, name)
    return tonumber(redis.call('HGET', prefix .. key, name) or 0)
end
local function beyond(value, most)
    return most ~= '' and value > tonumber(most)
end
local function remove(id)
    local found = redis.call('HMGET', prefix .. 'c:' .. id, 'memory', 'owner')
    if found[1] then take(found[2], -1, -found[1]) end
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

# token, settings, deadline, memory, most contexts, most memory, owner, the owner's most contexts and
# memory, messages… -> '', 'taken', 'contexts', 'memory', 'contexts of key' or 'memory of key'
CREATE: Final = f"""{_BEGIN}
for _, due in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now, 'LIMIT', 0, 100)) do
    if alive(due) then redis.call('ZADD', prefix .. 'due', now + 60, due) else remove(due) end
end
local made = redis.call('HGET', key, 'made')
if made then
    if made == ARGV[4] then return '' end
    return 'taken'
end
local owned = 'o:' .. ARGV[10]
if beyond(taken(owned, 'contexts') + 1, ARGV[11]) then return 'contexts of key' end
if taken('taken', 'contexts') >= tonumber(ARGV[8]) then return 'contexts' end
if beyond(taken(owned, 'memory') + ARGV[7], ARGV[12]) then return 'memory of key' end
if taken('taken', 'memory') + ARGV[7] > tonumber(ARGV[9]) then return 'memory' end
redis.call('HSET', key, 'made', ARGV[4], 'settings', ARGV[5], 'deadline', ARGV[6], 'memory', ARGV[7], 'stored', 0,
    'owner', ARGV[10])
for place = 13, #ARGV do redis.call('RPUSH', prefix .. 'i:' .. id, ARGV[place]) end
redis.call('ZADD', prefix .. 'due', ARGV[6], id)
take(ARGV[10], 1, ARGV[7])
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

# token, lease, known, memory of the question, the owner's most memory
# -> nothing if gone; 'busy'; 'memory'; or first, stored, deadline, messages
CLAIM: Final = f"""{_BEGIN}
if not alive(id) then
    remove(id)
    return false
end
if claimed(key) and redis.call('HGET', key, 'claim') ~= ARGV[4] then return {{'busy'}} end
if beyond(taken('o:' .. redis.call('HGET', key, 'owner'), 'memory') + ARGV[7], ARGV[8]) then return {{'memory'}} end
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
take(redis.call('HGET', key, 'owner'), 0, memory)
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

# Ends calls, renews others, and admits one of the owner that stands in place of the id, unless that is ''.
# token, lease, most calls, requests and tokens a minute ('' for none), number of ended calls; then for each of those
# owner, token and tokens used; then owner and token of each call to renew
# -> nothing; or 'calls', 'requests' or 'tokens', and the seconds to wait
ADMIT: Final = f"""{_BEGIN}
local owner, lease = id, tonumber(ARGV[5])
local function add(kind, owner, amount)
    redis.call('HINCRBY', prefix .. kind .. owner, math.floor(now), amount)
    redis.call('EXPIRE', prefix .. kind .. owner, 120)
end
local function wait(kind, most)
    if most == '' then return 0 end
    local seconds, total, key = {{}}, 0, prefix .. kind .. owner
    local found = redis.call('HGETALL', key)
    for place = 1, #found, 2 do
        if tonumber(found[place]) + 61 <= now then
            redis.call('HDEL', key, found[place])
        else
            table.insert(seconds, {{tonumber(found[place]), tonumber(found[place + 1])}})
            total = total + found[place + 1]
        end
    end
    table.sort(seconds, function(one, other) return one[1] < other[1] end)
    local left = 0
    for _, second in ipairs(seconds) do
        if total < tonumber(most) then break end
        total = total - second[2]
        left = second[1] + 61 - now
    end
    return left
end
local place = 10
for _ = 1, tonumber(ARGV[9]) do
    redis.call('ZREM', prefix .. 'a:' .. ARGV[place], ARGV[place + 1])
    if ARGV[place + 2] ~= '0' then add('t:', ARGV[place], ARGV[place + 2]) end
    place = place + 3
end
for place = place, #ARGV, 2 do
    redis.call('ZADD', prefix .. 'a:' .. ARGV[place], 'XX', clock + lease, ARGV[place + 1])
    redis.call('PEXPIRE', prefix .. 'a:' .. ARGV[place], lease * 2)
end
if owner == '' then return end
local calls = prefix .. 'a:' .. owner
redis.call('ZREMRANGEBYSCORE', calls, '-inf', clock)
if redis.call('ZSCORE', calls, ARGV[4]) then return end
if beyond(redis.call('ZCARD', calls) + 1, ARGV[6]) then return {{'calls', '1'}} end
local requests, tokens = wait('r:', ARGV[7]), wait('t:', ARGV[8])
if tokens > requests then return {{'tokens', tostring(tokens)}} end
if requests > 0 then return {{'requests', tostring(requests)}} end
redis.call('ZADD', calls, clock + lease, ARGV[4])
redis.call('PEXPIRE', calls, lease * 2)
add('r:', owner, 1)
"""
