"""Settings: frozen values, checked when made. Times are in seconds; where None is allowed, None means no limit."""

import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs

from . import checks
from .errors import InvalidInputError
from .keywords import suggest_fields

__all__ = [
    "DEFAULT_BASE_URL",
    "UNSET",
    "HiddenText",
    "Limits",
    "Retry",
    "Secret",
    "Timeouts",
    "Unset",
    "__version__",
    "hide",
    "read_retry",
    "read_timeouts",
]

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


_TIMEOUTS: Final = 5
_SHORTEST: Final = math.ulp(0.0)  # seconds: the smallest number above 0
_REDACTED_FROM: Final = 4  # shorter keys are not redacted: they would match ordinary text
_PART: Final = 8  # as many characters in a row of a long key are redacted, too: others cut texts before this package
_LONG_KEY: Final = 16
_SHORTEST_CUT: Final = 400  # shorter texts were not cut by this package
_SHORTEST_END: Final = 4
_SEARCHED: Final = 64 * 1024  # of a longer text, both ends are searched for parts


class Secret:
    """A string that cannot be printed or pickled by accident."""

    __slots__ = ("_parts", "_runs", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._parts = {value[start : start + _PART] for start in range(len(value) - _PART + 1)}
        self._runs = re.compile(f"[{re.escape(value)}]{{{_PART},}}") if len(value) >= _LONG_KEY else None

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
        """Return a text, JSON data or a model with the secret, and longer parts of the secret, replaced by `…`.

        >>> Secret("sk-0123456789abcdef").redact({"message": "bad key sk-0123456789abcdef", "cut": "…key sk-01234567"})
        {'message': 'bad key …', 'cut': '…key …'}
        """
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, dict):
            return {self.redact(name): self.redact(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.redact, value))
        if attrs.has(type(value)):
            fields = [field for field in attrs.fields(type(value)) if field.init]
            return attrs.evolve(value, **{field.alias: self.redact(getattr(value, field.name)) for field in fields})
        if isinstance(value, bytes):
            return self._redact_text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        redacted = getattr(type(value), "redacted", None)
        return value if redacted is None else redacted(value, self)

    def _redact_text(self, text: str) -> str:
        if len(self._value) < _REDACTED_FROM:
            return text
        text = self._redact_end(text.replace(self._value, "…"))
        if self._runs is None:
            return text
        if len(text) <= 2 * _SEARCHED:
            return self._runs.sub(self._redact_run, text)
        head, middle, tail = text[:_SEARCHED], text[_SEARCHED:-_SEARCHED], text[-_SEARCHED:]
        return self._runs.sub(self._redact_run, head) + middle + self._runs.sub(self._redact_run, tail)

    def _redact_end(self, text: str) -> str:
        """Replace the beginning of the secret that a cut for display left at the end of a text."""
        if len(text) < _SHORTEST_CUT:
            return text
        shown = text.removesuffix("…")
        for length in range(len(self._value) - 1, _SHORTEST_END - 1, -1):
            if shown.endswith(self._value[:length]):
                return shown[:-length] + "…"
        return text

    def _redact_run(self, match: "re.Match[str]") -> str:
        """Replace the parts in a run of characters that all occur in the secret."""
        run, at, kept = match[0], 0, []
        while at < len(run):
            if run[at : at + _PART] in self._parts:
                at += _PART
                while run[at - _PART + 1 : at + 1] in self._parts:
                    at += 1
                kept.append("…")
            else:
                kept.append(run[at])
                at += 1
        return "".join(kept)

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> Any:
        raise InvalidInputError("a secret cannot be pickled", field="secret", allowed="nothing")


class HiddenText(str):
    """A string that does not show where local variables are shown, such as the value of a header."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def hide(value: Any) -> Any:
    """Return a string, or a mapping of strings, that does not show where local variables are shown."""
    if isinstance(value, str):
        return HiddenText(value)
    return {name: hide(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _limit(field: str, default: float | None) -> Any:
    """A field of seconds, or None for no limit; `UNSET` is its default."""
    allowed = "a number of seconds above 0, or None for no limit"

    def check(value: float | Unset | None) -> float | None:
        if value is None or value is UNSET:
            return default if value is UNSET else None
        return checks.number(field, value, _SHORTEST, allowed=allowed)

    return attrs.field(default=UNSET, converter=check)


def _seconds(field: str, default: float) -> Any:
    """A field of seconds that may be 0."""
    return attrs.field(
        default=default, converter=lambda value: checks.number(field, value, 0, allowed="a number of seconds from 0 up")
    )


def _count(field: str, default: int, least: int) -> Any:
    """A field that counts something."""
    return attrs.field(default=default, converter=lambda value: checks.whole(field, value, least))


@suggest_fields
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

    Defaults: connect 10, head 600, idle 120, no limit for pool and total. The `timeouts` of a call change only the
    limits that were named: the others stay the session's.
    """

    connect: float | None = _limit("Timeouts.connect", 10.0)
    pool: float | None = _limit("Timeouts.pool", None)
    head: float | None = _limit("Timeouts.head", 600.0)
    idle: float | None = _limit("Timeouts.idle", 120.0)
    total: float | None = _limit("Timeouts.total", None)
    _named: frozenset[str] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_pre_init__(self, **limits: Any) -> None:
        named = frozenset(name for name, value in limits.items() if value is not UNSET)
        object.__setattr__(self, "_named", named)

    def over(self, base: "Timeouts") -> "Timeouts":
        """Return the limits that were named here, and those of `base` for the rest."""
        if len(self._named) == _TIMEOUTS:
            return self
        named = {name: getattr(self, name) for name in self._named}
        return attrs.evolve(base, **named) if named else base


@suggest_fields
@attrs.frozen(kw_only=True)
class Limits:
    """Limits on connections and memory.

    Attributes:
        connections: concurrent calls and streams, each on a connection of its own; further calls wait. 0: no limit.
        keepalive: seconds an idle connection is kept for the next call.
        event_bytes: the largest server-sent event; beyond, a `MalformedStreamError`.
        body_bytes: the largest plain answer; beyond, a `ProtocolError`.
        answer_bytes: the largest streamed answer, all its events together; beyond, a `MalformedStreamError`.
    """

    connections: int = _count("Limits.connections", 1000, 0)
    keepalive: float = _seconds("Limits.keepalive", 30.0)
    event_bytes: int = _count("Limits.event_bytes", 16 * 1024 * 1024, 1)
    body_bytes: int = _count("Limits.body_bytes", 64 * 1024 * 1024, 1)
    answer_bytes: int = _count("Limits.answer_bytes", 64 * 1024 * 1024, 1)


@suggest_fields
@attrs.frozen(kw_only=True)
class Retry:
    """When to repeat a call. Only errors that are safe to repeat are retried: `ctxcache.retry` has the list.

    Attributes:
        attempts: attempts in all, the first included; 1 turns retries off.
        first_delay: seconds of the first pause. Each further pause is twice as long; all are shortened at random by
            up to a half.
        max_delay: the longest pause, in seconds.
        max_elapsed: seconds after the start of the first attempt, beyond which no attempt starts.
        max_retry_after: the longest `Retry-After` to wait for, in seconds; beyond, the error is raised.
    """

    attempts: int = _count("Retry.attempts", 3, 1)
    first_delay: float = _seconds("Retry.first_delay", 0.5)
    max_delay: float = _seconds("Retry.max_delay", 8.0)
    max_elapsed: float = _seconds("Retry.max_elapsed", 120.0)
    max_retry_after: float = _seconds("Retry.max_retry_after", 60.0)


def read_timeouts(value: object, base: Timeouts) -> Timeouts:
    """Return time limits from a `Timeouts`, or seconds for the whole call; None and `UNSET` stand for those of `base`.

    Raises:
        InvalidInputError: for any other value.
    """
    if value is None or value is UNSET:
        return base
    if isinstance(value, Timeouts):
        return value.over(base)
    seconds = checks.plain_number(value)
    if isinstance(value, bool) or not isinstance(seconds, int | float):
        raise InvalidInputError.of("timeouts", value, "a Timeouts, or a number of seconds for the whole call")
    return attrs.evolve(base, total=seconds)


def read_retry(value: object, base: Retry) -> Retry:
    """Return a policy from a `Retry`, or the retries after the first attempt; None and `UNSET` stand for `base`.

    Raises:
        InvalidInputError: for any other value.
    """
    if value is None or value is UNSET:
        return base
    if isinstance(value, Retry):
        return value
    allowed = "a Retry, or a number of retries after the first attempt, from 0 up"
    return attrs.evolve(base, attempts=checks.whole("retry", value, 0, allowed=allowed) + 1)
