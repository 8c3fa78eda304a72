"""The limit on waiting for the head of an answer, without a timer for each call."""

import asyncio
from collections import OrderedDict

from aiohttp.client_proto import ResponseHandler

from ...errors import APITimeoutError

__all__ = ["HeadTimeouts"]


class HeadTimeouts:
    """Ends the wait for heads that do not come in time.

    Who waits equally long is due in the order of beginning: one timer, for the first, does for all. A timer for each
    takes 5 µs of a call of 140, since asyncio keeps cancelled ones in its heap until they are many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[float, OrderedDict[object, tuple[float, ResponseHandler]]] = {}  # by limit, then attempt
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def begin(self, attempt: object, protocol: ResponseHandler, limit: float) -> None:
        """From now on, let the attempt wait at most `limit` seconds for the head that comes on its connection.

        Not the connection is what waits: it may serve the next attempt before this one has come to its `end`.
        """
        due = self._loop.time() + limit
        if limit not in self._waiting:
            self._waiting[limit] = OrderedDict()
            self._timers[limit] = self._loop.call_at(due, self._look, limit)
        self._waiting[limit][attempt] = due, protocol

    def end(self, attempt: object, limit: float) -> None:
        """Note that the head came, or that nobody waits for it any more, or that nobody ever did."""
        if limit in self._waiting:
            self._waiting[limit].pop(attempt, None)

    def _look(self, limit: float) -> None:
        waiting = self._waiting[limit]
        while waiting:
            attempt, (due, protocol) = next(iter(waiting.items()))
            if due > self._loop.time():
                self._timers[limit] = self._loop.call_at(due, self._look, limit)
                return
            del waiting[attempt]
            protocol.set_exception(APITimeoutError.of("head", limit, sent=True))  # who waits for the head gets it
        del self._waiting[limit], self._timers[limit]

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._waiting.clear()
        self._timers.clear()
