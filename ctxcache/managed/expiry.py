"""When a context will be gone: an idle timer that every use starts anew. Pure: the time is an argument.

The service counts from a moment between the request and its answer, which the client cannot see. Counting from the
moment the request was sent, and stopping a margin early, errs on the safe side: a context is created anew a little too
soon, rather than called a little too late.
"""

from math import isfinite
from typing import Final

from ..errors import InvalidInputError
from ..models import DEFAULT_TTL, Context

__all__ = ["DEFAULT_MARGIN", "Expiry", "check_margin", "idle_seconds"]

DEFAULT_MARGIN: Final = 30.0
_MARGIN_SHARE: Final = 0.1
_LONGEST_SECONDS: Final = 366 * 86400  # far above any service's; larger numbers may fit no float


def idle_seconds(context: Context, asked: float | None = None) -> float:
    """Return a context's idle time in seconds, a year at most.

    It is what the service said (above 0), else what was asked for, else the service's default.
    """
    said = context.ttl if context.ttl is not None and context.ttl > 0 else None
    return float(min(said or asked or DEFAULT_TTL, _LONGEST_SECONDS))


def check_margin(margin: object) -> float:
    """Return a safety margin in seconds, checked.

    Raises:
        InvalidInputError: for anything but a finite number from 0 up.
    """
    number = isinstance(margin, int | float) and not isinstance(margin, bool)
    if not number or not isfinite(margin) or margin < 0:  # type: ignore[arg-type, operator]  # a number by now
        raise InvalidInputError.of("margin", margin, "a number of seconds from 0 up")
    return float(margin)  # type: ignore[arg-type]


class Expiry:
    """The idle timer of one context. Times are Unix seconds, by whichever clock the caller reads.

    Args:
        ttl: idle seconds after which the context is gone.
        began: when it was created, or last used: the moment that request was sent.
        margin: seconds before its end from which it counts as expired; never more than a tenth of `ttl`.
        remaining: seconds it has left at `began`, if not all of `ttl`.

    Attributes:
        ttl, margin: as above; `margin` after its limit.
        expires_at: when it will be gone, unless it is used before.
    """

    __slots__ = ("expires_at", "margin", "ttl")

    def __init__(
        self, ttl: float, began: float, *, margin: float = DEFAULT_MARGIN, remaining: float | None = None
    ) -> None:
        self.ttl = ttl
        self.margin = min(margin, ttl * _MARGIN_SHARE)
        self.expires_at = began + (ttl if remaining is None else remaining)

    def used(self, sent: float) -> None:
        """Note a successful use that was sent at this time. Uses may be noted in any order: it never goes back."""
        self.expires_at = max(self.expires_at, sent + self.ttl)

    def remaining(self, now: float) -> float:
        """Seconds until it is gone; 0 when it is."""
        return max(0.0, self.expires_at - now)

    def expired(self, now: float) -> bool:
        """Whether it is gone, or so nearly that a call might come too late."""
        return now >= self.expires_at - self.margin

    def __repr__(self) -> str:
        return f"<Expiry at {self.expires_at:.3f}, ttl {self.ttl:g} s>"
