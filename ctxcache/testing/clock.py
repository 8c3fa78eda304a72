"""The time of a gateway in a test."""

import time

from .. import checks

__all__ = ["Clock"]


class Clock:
    """A wall clock that begins with the time of day, stands still, and moves when told.

    Attributes:
        now: Unix seconds.
    """

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Return `now`."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward: contexts whose ttl has passed expire, and the calls of a minute are forgotten.

        Raises:
            InvalidInputError: for a number below 0.
        """
        self.now += checks.number("seconds", seconds, 0)
