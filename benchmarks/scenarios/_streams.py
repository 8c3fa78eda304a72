"""Many streams of one load at once, each read by a task of its own."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ..accounting import server_stats
from ..clients import Client

_BATCH: Final = 100  # opened at once: no client's connect limit is to be the thing measured
_POLL: Final = 0.005


def url(port: int) -> str:
    """The base URL of the load server."""
    return f"http://127.0.0.1:{port}/v1"


class Streams:
    """Streams that are opened, measured, and closed."""

    def __init__(self, client: Client, port: int) -> None:
        self.client = client
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self._before = server_stats(port)["streaming"]

    async def open(self, count: int, read: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> bool:
        """Open streams, in batches, until the server has them all; False if that took longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while len(self._tasks) < count:
            batch = min(_BATCH, count - len(self._tasks))
            self._tasks += [asyncio.create_task(read()) for _ in range(batch)]
            while server_stats(self._port)["streaming"] - self._before < len(self._tasks):
                self.check()
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(_POLL)
        return True

    async def chunks(self, expected: int, seconds: float) -> None:
        """Wait until the client has read that many chunks in all."""
        async with asyncio.timeout(seconds):
            while self.client.chunks < expected:
                self.check()
                await asyncio.sleep(_POLL)

    def go(self) -> None:
        """Let the server begin to send on gated streams."""
        server_stats(self._port, "/go")

    def check(self) -> None:
        """Raise what a stream failed with, if one did."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """Cancel the reading tasks, and wait until the server sees the streams gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        deadline = time.monotonic() + 10
        while server_stats(self._port)["streaming"] > self._before and time.monotonic() < deadline:
            await asyncio.sleep(_POLL)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not pass; nan of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
