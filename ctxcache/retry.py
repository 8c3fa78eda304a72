"""The retry rules. Pure: clock and randomness are arguments.

A request is sent again where a second copy provably cannot run, or where the caller declared a repeat harmless:

=================================  ====================================================================
did not run: always                no connection; a kept-alive connection found closed before a byte of
                                   the body went out; 429 without a quota code; 403 context busy
may have run: `repeatable` only    sent, then no answer, half an answer or too late an answer; 5xx
pointless: never                   every other error; quota; a bad certificate; no free connection; `total`
=================================  ====================================================================

A request that may have run and is not repeatable ends in a `ReplyLostError`.
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

from .config import Retry
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ContextBusyError,
    CtxCacheError,
    InternalServerError,
    RateLimitError,
    ReplyLostError,
    ReplyTimeoutError,
)

__all__ = ["final_error", "may_repeat", "next_delay", "parse_retry_after", "unreachable"]


def unreachable(error: CtxCacheError) -> bool:
    """Whether no connection could be made, though another attempt may help: the call provably did not run."""
    return isinstance(error, APIConnectionError) and not error.sent and not error.hopeless


def may_repeat(error: CtxCacheError, *, repeatable: bool) -> bool:
    """Whether the request that ended in `error` may be sent again."""
    if isinstance(error, RateLimitError | ContextBusyError):
        return True
    if isinstance(error, InternalServerError):
        return repeatable
    if isinstance(error, APIConnectionError):
        return not error.hopeless and (repeatable or not error.sent)
    return False


def next_delay(policy: Retry, error: CtxCacheError, *, attempt: int, elapsed: float, jitter: float) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    The delay doubles with each attempt up to `max_delay`, is shortened at random by up to a half, and is never shorter
    than the service's `Retry-After`:

    >>> next_delay(Retry(), APIConnectionError("refused"), attempt=1, elapsed=0, jitter=0)
    0.5
    >>> next_delay(Retry(attempts=9), APIConnectionError("refused"), attempt=4, elapsed=10, jitter=0.5)
    3.0
    >>> next_delay(Retry(), RateLimitError("slow down", retry_after=20), attempt=1, elapsed=0, jitter=0)
    20
    >>> next_delay(Retry(), APIConnectionError("refused"), attempt=3, elapsed=2, jitter=0) is None  # 3 attempts in all
    True

    Args:
        policy: the settings.
        error: the failure of the last attempt.
        attempt: the number of the last attempt, from 1.
        elapsed: seconds since the first attempt began.
        jitter: a random number in [0, 1).
    """
    if attempt >= policy.attempts:
        return None
    delay: float = min(policy.first_delay * 2.0 ** min(attempt - 1, 60), policy.max_delay)
    delay *= 1 - jitter / 2
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is not None:
        if asked > policy.max_retry_after:
            return None
        delay = max(delay, asked)
    return delay if elapsed + delay <= policy.max_elapsed else None


def final_error(error: CtxCacheError, *, repeatable: bool) -> CtxCacheError:
    """Return the error to raise after the last attempt: a `ReplyLostError` where the request may have run."""
    if not isinstance(error, APIConnectionError) or not error.sent or repeatable:
        return error
    kind = ReplyTimeoutError if isinstance(error, APITimeoutError) else ReplyLostError
    message = f"the request was sent, but {error.message}: it may have run, a session turn may have been stored"
    known = {name: value for name, value in error.__dict__.items() if name not in ("message", "cause")}
    return kind(message, cause=error, **known)


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds the service asks to wait: `Retry-After-Ms`, else `Retry-After` in seconds or as a date.

    >>> parse_retry_after({"Retry-After": "2.5"}, now=0)
    2.5
    >>> parse_retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=50)
    10.0

    Args:
        headers: a case-insensitive mapping.
        now: the current time in Unix seconds; a date counts from then.
    """
    delays = (_delay(headers.get("Retry-After-Ms"), now, 1000), _delay(headers.get("Retry-After"), now, 1))
    return next((delay for delay in delays if delay is not None), None)


def _delay(value: str | None, now: float, per_second: int) -> float | None:
    if value is None:
        return None
    try:
        if value.strip()[:1].isdigit():
            delay = float(value) / per_second
        else:
            date = parsedate_to_datetime(value)  # RFC 9110: HTTP dates are in GMT, said or not
            delay = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, delay) if isfinite(delay) else None
