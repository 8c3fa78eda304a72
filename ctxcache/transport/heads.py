"""The limit on waiting for the head of an answer, without a timer for each call."""

import asyncio
from collections import OrderedDict

from aiohttp.client_proto import ResponseHandler

from ..errors import APITimeoutError

__all__ = ["HeadTimeouts"]


class HeadTimeouts:
    """Ends the wait for heads that do not come in time.

    Who waits equally long is due in the order of beginning: one timer, for the first, does for all. A timer for each
    takes 5 µs of a call of 140, since asyncio keeps cancelled ones in its heap until they are many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[float, OrderedDict[ResponseHandler, float]] = {}  # by limit
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def begin(self, protocol: ResponseHandler, limit: float) -> None:
        """From now on, wait at most `limit` seconds for the head that comes on this connection."""
        due = self._loop.time() + limit
        if limit not in self._due:
            self._due[limit] = OrderedDict()
            self._timers[limit] = self._loop.call_at(due, self._look, limit)
        self._due[limit][protocol] = due

    def end(self, protocol: ResponseHandler, limit: float) -> None:
        """Note that the head came, or that nobody waits for it any more."""
        if limit in self._due:
            self._due[limit].pop(protocol, None)

    def _look(self, limit: float) -> None:
        waiting = self._due[limit]
        while waiting:
            protocol, due = next(iter(waiting.items()))
            if due > self._loop.time():
                self._timers[limit] = self._loop.call_at(due, self._look, limit)
                return
            del waiting[protocol]
            protocol.set_exception(APITimeoutError.of("head", limit, sent=True))  # who waits for the head gets it
        del self._due[limit], self._timers[limit]

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._due.clear()
        self._timers.clear()
