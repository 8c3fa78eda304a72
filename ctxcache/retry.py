"""When to try again. Pure: clock and randomness are arguments.

A call is repeated where that provably cannot store a turn twice, or where the caller said it does no harm:

=================================  ====================================================================
did not run: always                no connection; a kept-alive connection found closed before a byte of
                                   the body went out; 429 without a quota code; 403 context busy
may have run: `repeatable` only    sent, then no answer, half an answer or too late an answer; 5xx
pointless: never                   every other error; quota; a bad certificate; no free connection; `total`
=================================  ====================================================================

What may have run and is not repeatable becomes an `OutcomeUnknownError`.
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

from .config import Retry
from .errors import (
    APIConnectionError,
    APIStatusError,
    ContextBusyError,
    CtxCacheError,
    InternalServerError,
    OutcomeUnknownError,
    RateLimitError,
)

__all__ = ["final_error", "may_repeat", "next_delay", "parse_retry_after"]


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
    """Seconds to wait before the next try, or None to give up.

    Args:
        policy: the settings.
        error: what the last try ended in.
        attempt: its number, from 1.
        elapsed: seconds since the first try began.
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
    """The error to raise when nothing more is tried: says so where the request may have run."""
    if isinstance(error, APIConnectionError) and error.sent and not repeatable:
        unknown = OutcomeUnknownError(
            f"the request was sent, but {error.message}: it may have run, a session turn may have been stored",
            cause=error,
        )
        unknown.__dict__.update({name: getattr(error, name) for name in ("request_id", "log_id")})
        return unknown
    return error


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read how long the service asks to wait, in seconds: `retry-after-ms`, or `Retry-After` in seconds or as a date.

    Args:
        headers: a case-insensitive mapping.
        now: the time, in Unix seconds, that a date is compared with.
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
