"""A store in Redis or Valkey, for many machines.

A context is a hash (`id`, `ttl`) under `<prefix><key>`, a lease a string under `<prefix><key>:lease`, a pause a string
under `<prefix><key>:pause`; all expire by the server's clock. Every operation is a script on one key, which the server
runs atomically.
"""

import asyncio
import math
import warnings
from typing import Any, Final

from ...errors import InvalidInputError, SessionError
from ...keywords import suggest_keywords
from ...redis_client import connect
from .protocol import LONGEST_LEASE, LONGEST_PAUSE, ClosingStore, StoredContext

__all__ = ["RedisStore"]

_CONNECTIONS: Final = 4  # operations are short; more of them wait
_STEP_SECONDS: Final = 2.0  # to connect, or to answer
_OPERATION_SECONDS: Final = 5.0  # all of it: waiting for a connection, connecting, a second try

# An entry of another type, or without an end, is nobody's: a get finds nothing there, a put or a lease replaces it.
_GET: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {} end
local found = redis.call('HMGET', KEYS[1], 'id', 'ttl')
return {found[1], found[2], redis.call('PTTL', KEYS[1])}
"""
_PUT: Final = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'ttl', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""
_TOUCH: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return end
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
"""
_FORGET: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return end
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
_LEASE: Final = f"""
local left = redis.call('PTTL', KEYS[1])
if redis.call('TYPE', KEYS[1]).ok == 'string' and left >= 0 and left <= {LONGEST_LEASE * 1000:.0f} then
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
_PAUSED: Final = f"""
local left = redis.call('PTTL', KEYS[1])
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or left < 0 or left > {LONGEST_PAUSE * 1000:.0f} then left = 0 end
"""
_PAUSE: Final = f"{_PAUSED} if tonumber(ARGV[1]) > left then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end"


class RedisStore(ClosingStore):
    """Shares contexts between machines, through a Redis or Valkey server.

    Belongs to the event loop of its first use, as a session does; opens at most 4 connections. Close the store
    with `async with`, or `aclose()`: otherwise the garbage collector closes the connections, with a `ResourceWarning`.

    Operations raise `redis.RedisError`, `OSError` or `TimeoutError` if the server cannot be used, within 5 seconds; the
    next operation connects again.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, in redis-py's form:
            `rediss://user:password@host:6379/0?ssl_ca_certs=ca.pem`. Appears in no repr or error of this package.
        prefix: the beginning of all keys of the store.

    Raises:
        InvalidInputError: the URL is invalid, or redis is not installed (`pip install "redis>=5"`).
    """

    _closed = True  # for __del__, if __init__ fails

    @suggest_keywords
    def __init__(self, url: str, *, prefix: str = "ctxcache:", _step_seconds: float = _STEP_SECONDS) -> None:
        if not isinstance(prefix, str):
            raise InvalidInputError.of("prefix", prefix, "a string")
        self._prefix = prefix
        self._client = connect(url, _CONNECTIONS, _step_seconds, _OPERATION_SECONDS)
        self._pool = self._client.connection_pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way = 0
        self._closed = False
        self._emptied = asyncio.Event()

    def __repr__(self) -> str:
        return f"<RedisStore {self._prefix!r}{', closed' if self._closed else ''}>"

    def __del__(self) -> None:
        if not self._closed and self._loop is not None:
            warnings.warn(f"{self!r} was never closed: use `async with`, or aclose()", ResourceWarning, stacklevel=2)

    async def get(self, key: str) -> StoredContext | None:
        """Return the context kept for a key, None if there is none or it has expired."""
        return _read(*await self._run(_GET, self._prefix + key))

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context for `remaining` seconds, in place of any kept before."""
        await self._run(_PUT, self._prefix + key, context_id, float(ttl), _milliseconds(remaining))

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """Postpone the expiry of a context; never shorten it, never change another context."""
        await self._run(_TOUCH, self._prefix + key, context_id, _milliseconds(remaining))

    async def forget(self, key: str, context_id: str) -> None:
        """Drop a context, unless another is kept."""
        await self._run(_FORGET, self._prefix + key, context_id)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or extend the lease of a key; False while another holder has it."""
        lasting = max(1, _milliseconds(min(seconds, LONGEST_LEASE)))
        return bool(await self._run(_LEASE, f"{self._prefix}{key}:lease", holder, lasting))

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        await self._run(_RELEASE, f"{self._prefix}{key}:lease", holder)

    async def pause(self, key: str, seconds: float) -> None:
        """Note that nobody is to call for so many seconds; never shorten a pause."""
        await self._run(_PAUSE, f"{self._prefix}{key}:pause", _milliseconds(min(seconds, LONGEST_PAUSE)))

    async def paused(self, key: str) -> float:
        """Return the seconds until the pause of a key ends; 0 without a pause."""
        return float(await self._run(f"{_PAUSED} return left", f"{self._prefix}{key}:pause")) / 1000

    async def aclose(self) -> None:
        """Wait a few seconds for the operations under way, and close the connections.

        Raises:
            SessionError: called in another event loop than the store's.
        """
        if self._loop not in (None, asyncio.get_running_loop()):
            raise SessionError("the store belongs to another event loop: close it in that one")
        self._closed = True
        if self._under_way:
            await self._emptied.wait()  # the last operation closes the connections
        else:
            await self._pool.disconnect()

    async def _run(self, script: str, key: str, *values: str | int | float) -> Any:
        """Run a script on one key in the server."""
        if self._closed:
            raise SessionError("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        elif self._loop is not asyncio.get_running_loop():
            raise SessionError("the store belongs to another event loop: make one store in each")
        self._under_way += 1
        try:
            async with asyncio.timeout(_OPERATION_SECONDS):
                return await self._client.eval(script, 1, key, *map(str, values))
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                try:
                    await self._pool.disconnect()
                finally:
                    self._emptied.set()


def _read(context_id: bytes | None = None, ttl: bytes | None = None, left: int = 0) -> StoredContext | None:
    """Read an entry; one that is damaged counts as none."""
    if not context_id or ttl is None or left <= 0:
        return None
    try:
        found = StoredContext(context_id.decode(), float(ttl), left / 1000)
    except ValueError:
        return None
    return found if 0 < found.ttl < math.inf else None


def _milliseconds(seconds: float) -> int:
    # Rounded down: better gone early than late. 0 or less: gone at once.
    return max(0, int(seconds * 1000))
