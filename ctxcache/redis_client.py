"""The client of Redis or Valkey, made from a URL whose password shows in no error."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import InvalidInputError

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["connect"]


def connect(url: object, connections: int, step_seconds: float, wait_seconds: float) -> "Redis":
    """Make a client; nothing connects yet. An operation that fails is tried once more: every operation is repeatable.

    Args:
        url: `redis://`, `rediss://` or `unix://`, in redis-py's form.
        connections: the most connections.
        step_seconds: the time to connect, or to answer.
        wait_seconds: the time to wait for a connection.

    Raises:
        InvalidInputError: the URL is invalid, or redis is not installed; the URL is not shown.
    """
    try:
        from redis import exceptions
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise _refusal('the package redis (extra ctxcache[redis]) is not installed: pip install "redis>=5"') from None
    try:
        pool = BlockingConnectionPool.from_url(
            _checked(url),
            max_connections=connections,
            timeout=wait_seconds,
            socket_connect_timeout=step_seconds,
            socket_timeout=step_seconds,
            retry=Retry(NoBackoff(), 1),
            retry_on_error=[exceptions.ConnectionError, exceptions.TimeoutError],
        )
    except (ValueError, TypeError):
        pool = None  # the error's text may contain part of the password
    if pool is None:
        raise _refusal(
            "it must be redis://, rediss:// or unix://, with special characters in the password percent-encoded"
        )
    pool.connection_kwargs["decode_responses"] = False  # even if the URL says otherwise
    return Redis(connection_pool=pool)


def _checked(url: object) -> str:
    if not isinstance(url, str):
        raise TypeError
    parts = urlsplit(url)
    rest = parts.path + parts.fragment + (parts.query if parts.scheme != "unix" else "")
    if "@" in rest:  # an unescaped `/`, `#` or `?` would make part of the password look like the host
        raise ValueError
    return url


def _refusal(reason: str) -> InvalidInputError:
    return InvalidInputError(f"url: {reason}", field="url", allowed="a URL that redis-py understands")
