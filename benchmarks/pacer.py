"""The server's clock: streams are called when their next chunk is due.

Time goes in slots of a millisecond, and a stream's period is a whole number of them. Streams that are due in one slot
stay together, so that a chunk costs the pacer a call and no more.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Protocol

SLOTS: Final = 1000  # a second
LATE_MS: Final = 10  # a chunk that leaves this much after its time was late


class Stream(Protocol):
    """Something that sends a chunk when it is told to."""

    def send(self, data: bytes) -> bool:
        """Send the chunk; return whether there will be another."""


class Pacer:
    """Sends the chunks of all paced streams.

    Attributes:
        late: how many chunks left late.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, chunk: Callable[[], bytes]) -> None:
        self.late = 0
        self._loop = loop
        self._chunk = chunk  # makes the chunk of a slot, with its time in it
        self._slots: dict[tuple[int, int], list[Stream]] = {}  # (slot, period) → the streams due then
        self._due: list[tuple[int, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream, rate: float, phase: float) -> None:
        """Call the stream `rate` times a second from now on; `phase` of a period is waited first."""
        period = max(1, round(SLOTS / rate))
        self._put((self._now() + 1 + int(period * phase), period), [stream])
        self._wake()

    def _now(self) -> int:
        return int(self._loop.time() * SLOTS)

    def _put(self, key: tuple[int, int], streams: list[Stream]) -> None:
        waiting = self._slots.get(key)
        if waiting is None:
            self._slots[key] = streams
            heapq.heappush(self._due, key)
        else:
            waiting += streams

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0][0] / SLOTS, self._tick) if self._due else None

    def _tick(self) -> None:
        """Send what is due; what falls due meanwhile waits for the next tick, so that requests are heard."""
        now = self._now()
        for _ in range(len(self._due)):
            if self._due[0][0] > now:
                break
            key = slot, period = heapq.heappop(self._due)
            streams = self._slots.pop(key)
            if self._now() - slot > LATE_MS:
                self.late += len(streams)
            data = self._chunk()
            left = [stream for stream in streams if stream.send(data)]
            if left:
                self._put((slot + period, period), left)
        self._wake()
