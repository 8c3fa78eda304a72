"""`Deadline`: `Timeouts.total` of a call on a managed context, all waits included."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import APITimeoutError

__all__ = ["Deadline"]

T = TypeVar("T")


class Deadline:
    """The time limit of a call from now on, for the waits before sending and after the answer.

    Args:
        total: seconds.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_started", "_total")

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._started = clock()

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started

    @property
    def left(self) -> float:
        """Seconds until the time is up; 0 from then on."""
        return max(self._total - self.waited, 0.0)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for something before the call is sent.

        Raises:
            APITimeoutError: the time is up.
        """
        try:
            async with asyncio.timeout(self.left):
                return await awaitable
        except APITimeoutError:
            raise  # another limit's
        except TimeoutError:
            pass
        raise APITimeoutError.of("total", self._total)
