"""The limit on the wait for the head of an answer, without a timer for each call."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from ...errors import APITimeoutError

__all__ = ["HeadTimeouts", "Reader"]


class Reader(Protocol):
    """The part of aiohttp's `ResponseHandler` that wakes the task that waits for the head."""

    def set_exception(self, exc: BaseException, /) -> None:
        """Raise an exception where the head is waited for."""


class HeadTimeouts:
    """Fails requests whose head does not arrive within `Timeouts.head`.

    Waits with the same limit expire in the order of beginning, so a single timer, for the oldest, serves all. A timer
    for each would take 5 µs of a call of 140: asyncio keeps cancelled timers in the heap until there are many.

    Args:
        loop: runs the timers.
        clock: seconds that only go forward.
        look: the longest a timer runs, seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], look: float) -> None:
        self._loop = loop
        self._clock = clock
        self._longest = look
        self._waiting: dict[float, OrderedDict[object, tuple[float, Reader]]] = {}  # by limit, then attempt
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def begin(self, attempt: object, reader: Reader, limit: float) -> None:
        """Let an attempt wait at most `limit` seconds from now.

        The wait is the attempt's, not the connection's: a connection may serve the next attempt before this `end`s.
        """
        if limit not in self._waiting:
            self._waiting[limit] = OrderedDict()
            self._timers[limit] = self._loop.call_later(min(limit, self._longest), self._look, limit)
        self._waiting[limit][attempt] = self._clock() + limit, reader

    def end(self, attempt: object, limit: float) -> None:
        """Note that an attempt no longer waits, or never did."""
        if limit in self._waiting:
            self._waiting[limit].pop(attempt, None)

    def _look(self, limit: float) -> None:
        waiting = self._waiting[limit]
        while waiting:
            attempt, (due, reader) = next(iter(waiting.items()))
            remaining = due - self._clock()
            if remaining > 0:
                self._timers[limit] = self._loop.call_later(min(remaining, self._longest), self._look, limit)
                return
            del waiting[attempt]
            reader.set_exception(APITimeoutError.of("head", limit, sent=True))
        del self._waiting[limit], self._timers[limit]

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._waiting.clear()
        self._timers.clear()
