"""Which server has a context, and which servers are left alone for a while. Pure: the clock is a parameter.

Rendezvous hashing: each server has a score for a context, the highest wins. A server that fails moves its own contexts
only, each to the server that was second for it; when that server is back, so are its contexts.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

__all__ = ["Breaker", "ranked"]

_DIGEST: Final = 16
FAILURES: Final = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


def ranked(context_id: str, names: Sequence[str]) -> list[int]:
    """Return the places of the servers in `names`, the best for the context first."""
    key = blake2b(context_id.encode(), digest_size=_DIGEST).digest()
    scores = [blake2b(name.encode(), digest_size=_DIGEST, key=key).digest() for name in names]
    return sorted(range(len(names)), key=scores.__getitem__, reverse=True)


class Breaker:
    """A circuit breaker: after some failures in a row a server is left alone, each time twice as long.

    =========  =====================================================================================
    state      meaning
    =========  =====================================================================================
    closed     calls pass; `failures` failures in a row open the breaker
    open       no call passes until the pause is over
    half-open  the pause is over: one call may try; success closes the breaker, failure opens it again
    =========  =====================================================================================

    Args:
        clock: seconds that only go forward.
        failures: failures in a row that open the breaker.
    """

    def __init__(self, clock: Callable[[], float], failures: int = FAILURES) -> None:
        self._clock: Final = clock
        self._most: Final = failures
        self._failures = 0
        self._pause = 0.0
        self._until: float | None = None  # None: closed

    @property
    def closed(self) -> bool:
        """Whether every call passes."""
        return self._until is None

    @property
    def seconds_left(self) -> float:
        """How long no call will pass."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def allows(self) -> bool:
        """Whether a call may be made now. In the half-open state True is said to one caller a pause."""
        if self._until is None:
            return True
        if self.seconds_left:
            return False
        self._until = self._clock() + self._pause
        return True

    def succeed(self) -> bool:
        """Note an answer; return whether the breaker was open."""
        opened = self._until is not None
        self._failures, self._pause, self._until = 0, 0.0, None
        return opened

    def fail(self) -> bool:
        """Note a failure; return whether the breaker has opened by this one."""
        self._failures += 1
        if self._failures < self._most:
            return False
        closed = self._until is None
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        self._until = self._clock() + self._pause
        return closed
