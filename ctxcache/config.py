"""Settings: frozen values, checked when made. Times are in seconds; where None is allowed, None means no limit."""

import math
from enum import Enum
from typing import Any, Final

import attrs

from . import checks
from .errors import InvalidInputError

__all__ = ["DEFAULT_BASE_URL", "UNSET", "Limits", "Retry", "Secret", "Timeouts", "Unset", "__version__"]

__version__ = "0.1.0"

DEFAULT_BASE_URL: Final = "https://gateway.serevixai.ai/v1"


class Unset(Enum):
    """The type of `UNSET`, which means "not given" and is not None. Unset parameters are not sent."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET


_SHORTEST: Final = math.ulp(0.0)  # seconds: the smallest number above 0
_REDACTED_FROM: Final = 4  # shorter keys are not redacted: they would match ordinary text


class Secret:
    """A string that cannot be printed or pickled by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def is_in(self, *texts: str | None) -> bool:
        """Whether any of the texts contains the secret."""
        for text in texts:  # noqa: SIM110  # any() takes twice as long, and this runs for every call
            if text is not None and self._value in text:
                return True
        return False

    def redact(self, value: Any) -> Any:
        """Return a text, or JSON data, with the secret replaced by `…`."""
        if isinstance(value, str):
            return value.replace(self._value, "…") if len(self._value) >= _REDACTED_FROM else value
        if isinstance(value, dict):
            return {self.redact(name): self.redact(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.redact(item) for item in value]
        return value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> Any:
        raise InvalidInputError("a secret cannot be pickled", field="secret", allowed="nothing")


def _limit(field: str, default: float | None) -> Any:
    """A field of seconds, or None for no limit."""
    allowed = "a number of seconds above 0, or None for no limit"

    def check(value: float | None) -> float | None:
        return None if value is None else checks.number(field, value, _SHORTEST, allowed=allowed)

    return attrs.field(default=default, converter=check)


def _seconds(field: str, default: float) -> Any:
    """A field of seconds that may be 0."""
    return attrs.field(
        default=default, converter=lambda value: checks.number(field, value, 0, allowed="a number of seconds from 0 up")
    )


def _count(field: str, default: int, least: int) -> Any:
    """A field that counts something."""
    return attrs.field(default=default, converter=lambda value: checks.whole(field, value, least))


@attrs.frozen(kw_only=True, cache_hash=True)
class Timeouts:
    """Time limits, in seconds; None means no limit.

    Attributes:
        connect: name lookup, TCP and TLS of one new connection.
        pool: waiting for a free connection when `Limits.connections` are in use.
        head: from the request sent to the response head (the model writes a plain answer in this time).
        idle: between two data events of a stream, or two reads of a body. Comments in a stream are not data. The time
            the caller spends on a chunk is not counted.
        total: the whole call, from queueing for a session context to the end of the body or stream, retries included.
    """

    connect: float | None = _limit("Timeouts.connect", 10.0)
    pool: float | None = _limit("Timeouts.pool", None)
    head: float | None = _limit("Timeouts.head", 600.0)
    idle: float | None = _limit("Timeouts.idle", 120.0)
    total: float | None = _limit("Timeouts.total", None)


@attrs.frozen(kw_only=True)
class Limits:
    """Limits on connections and memory.

    Attributes:
        connections: concurrent calls and streams, each on a connection of its own; further calls wait. 0: no limit.
        keepalive: seconds an idle connection is kept for the next call.
        event_bytes: the largest server-sent event; beyond, a `MalformedStreamError`.
        body_bytes: the largest plain answer; beyond, a `ProtocolError`.
    """

    connections: int = _count("Limits.connections", 1000, 0)
    keepalive: float = _seconds("Limits.keepalive", 30.0)
    event_bytes: int = _count("Limits.event_bytes", 16 * 1024 * 1024, 1)
    body_bytes: int = _count("Limits.body_bytes", 64 * 1024 * 1024, 1)


@attrs.frozen(kw_only=True)
class Retry:
    """When to repeat a call. Only errors that are safe to repeat are retried: `ctxcache.retry` has the list.

    Attributes:
        attempts: attempts in all, the first included; 1 turns retries off.
        first_delay: seconds of the first pause. Each further pause is twice as long; all are shortened at random by
            up to a half.
        max_delay: the longest pause, in seconds.
        max_elapsed: no attempt starts later than this after the first began, in seconds.
        max_retry_after: the longest `Retry-After` to wait for, in seconds; beyond, the error is raised.
    """

    attempts: int = _count("Retry.attempts", 3, 1)
    first_delay: float = _seconds("Retry.first_delay", 0.5)
    max_delay: float = _seconds("Retry.max_delay", 8.0)
    max_elapsed: float = _seconds("Retry.max_elapsed", 120.0)
    max_retry_after: float = _seconds("Retry.max_retry_after", 60.0)
