"""`Deadline`: `Timeouts.total` of one call on a managed context, with all its waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import APITimeoutError

__all__ = ["Deadline"]

T = TypeVar("T")


class Deadline:
    """The time limit of one call, counted from now on: this one for the waits before the call is sent.

    Args:
        total: seconds, or None for no limit.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_started", "_total")

    def __init__(self, total: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._started = clock()

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for something before the call is sent.

        Raises:
            APITimeoutError: the time is up.
        """
        if self._total is None:
            return await awaitable
        try:
            async with asyncio.timeout(self._total - self.waited):
                return await awaitable
        except TimeoutError:
            pass
        raise APITimeoutError.of("total", self._total)
