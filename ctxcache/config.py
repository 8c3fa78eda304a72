"""Settings: frozen values, checked when made. Times are in seconds; where None is allowed, None means no limit."""

import math
from enum import Enum
from typing import Any, Final

import attrs

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


def _seconds(*, zero: bool = False, none: bool = False) -> Any:
    allowed = f"a number of seconds {'from' if zero else 'above'} 0" + (", or None for no limit" if none else "")

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value is None and none:
            return
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and not zero):
            raise InvalidInputError.of(f"{type(instance).__name__}.{attribute.name}", value, allowed)

    return check


def _count(minimum: int) -> Any:
    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            field = f"{type(instance).__name__}.{attribute.name}"
            raise InvalidInputError.of(field, value, f"a whole number from {minimum} up")

    return check


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

    connect: float | None = attrs.field(default=10.0, validator=_seconds(none=True))
    pool: float | None = attrs.field(default=None, validator=_seconds(none=True))
    head: float | None = attrs.field(default=600.0, validator=_seconds(none=True))
    idle: float | None = attrs.field(default=120.0, validator=_seconds(none=True))
    total: float | None = attrs.field(default=None, validator=_seconds(none=True))


@attrs.frozen(kw_only=True)
class Limits:
    """Limits on connections and memory.

    Attributes:
        connections: concurrent calls and streams, each on a connection of its own; further calls wait. 0: no limit.
        keepalive: seconds an idle connection is kept for the next call.
        event_bytes: the largest server-sent event; beyond, a `MalformedStreamError`.
        body_bytes: the largest plain answer; beyond, a `ProtocolError`.
    """

    connections: int = attrs.field(default=1000, validator=_count(0))
    keepalive: float = attrs.field(default=30.0, validator=_seconds(zero=True))
    event_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=_count(1))
    body_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_count(1))


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

    attempts: int = attrs.field(default=3, validator=_count(1))
    first_delay: float = attrs.field(default=0.5, validator=_seconds(zero=True))
    max_delay: float = attrs.field(default=8.0, validator=_seconds(zero=True))
    max_elapsed: float = attrs.field(default=120.0, validator=_seconds(zero=True))
    max_retry_after: float = attrs.field(default=60.0, validator=_seconds(zero=True))
