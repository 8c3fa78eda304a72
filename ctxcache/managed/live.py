"""`LiveContext`: a context in use, with its idle timer and its account in the ledger. Pure: the time is an argument.

The service restarts a context's idle timer at a moment between request and answer that the client cannot see. Counting
from the moment the request was sent, and stopping a margin early, errs on the safe side: a context is replaced a little
too soon rather than called a little too late.
"""

from collections.abc import Callable
from typing import Final

from .. import checks
from ..log import one_line
from ..models import DEFAULT_TTL, Context, Usage
from .costs import Ledger

__all__ = ["DEFAULT_MARGIN", "LiveContext", "check_margin", "idle_seconds"]

DEFAULT_MARGIN: Final = 30.0
_MARGIN_SHARE: Final = 0.1
_LONGEST_SECONDS: Final = 366 * 86400  # far above any service's; larger numbers may fit no float


def idle_seconds(context: Context, requested: float | None = None) -> float:
    """Return a context's idle time in seconds, a year at most.

    The service's own number counts if above 0, else the requested one, else the service's default.
    """
    answered = context.ttl if context.ttl is not None and context.ttl > 0 else None
    return float(min(answered or requested or DEFAULT_TTL, _LONGEST_SECONDS))


def check_margin(margin: object) -> float:
    """Return a safety margin in seconds, checked.

    Raises:
        InvalidInputError: for anything but a finite number from 0 up.
    """
    return float(checks.number("margin", margin, 0, allowed="a number of seconds from 0 up"))


class LiveContext:
    """A context in use. Times are Unix seconds by the owner's clock.

    Args:
        context: as created; of an adopted context only id, ttl, model and mode are known.
        ledger: where uses are entered.
        ttl: idle seconds after which the service drops the context.
        since: when the create, or the last known use, was sent.
        margin: seconds before the end from which the context counts as expired; never more than a tenth of `ttl`.
        remaining: seconds left at `since`, if not all of `ttl`.
        adopted: whether the context was found in a store, not created here.
        on_uncached: called once if a repeat use shows no cached tokens.

    Attributes:
        context, ttl, adopted: as above.
        margin: as above, after its limit.
        expires_at: when the context will be gone, unless used before.
        store_expires_at: the same as the store knows it.
        answered: whether a call on the context was answered here. A context that never was may be dead from the start.
    """

    __slots__ = (
        "_ledger",
        "_on_uncached",
        "adopted",
        "answered",
        "context",
        "expires_at",
        "margin",
        "store_expires_at",
        "ttl",
    )

    def __init__(
        self,
        context: Context,
        ledger: Ledger,
        ttl: float,
        since: float,
        *,
        margin: float = DEFAULT_MARGIN,
        remaining: float | None = None,
        adopted: bool = False,
        on_uncached: Callable[["LiveContext"], object] | None = None,
    ) -> None:
        self.context = context
        self.ttl = ttl
        self.margin = min(margin, ttl * _MARGIN_SHARE)
        self.expires_at = since + (ttl if remaining is None else remaining)
        self.store_expires_at = self.expires_at
        self.adopted = adopted
        self.answered = False
        self._ledger = ledger
        self._on_uncached = on_uncached

    def used(self, usage: Usage | None, sent_at: float) -> None:
        """Restart the idle timer after a use, and enter the use in the ledger.

        Uses may be noted in any order: the timer never goes back.

        Args:
            usage: as the service counted it; None where it did not say.
            sent_at: when the request was sent.
        """
        self.answered = True
        self.expires_at = max(self.expires_at, sent_at + self.ttl)
        if self._ledger.used(self.context.id, usage, sent_at) and self._on_uncached is not None:
            self._on_uncached(self)

    def remaining(self, now: float) -> float:
        """Seconds until the context is gone; 0 when it is."""
        return max(0.0, self.expires_at - now)

    def expired(self, now: float) -> bool:
        """Whether the context is gone, or so nearly that a call might come too late."""
        return now >= self.expires_at - self.margin

    def __repr__(self) -> str:
        return f"<LiveContext {one_line(self.context.id)} until {self.expires_at:.3f}, ttl {self.ttl:g} s>"
