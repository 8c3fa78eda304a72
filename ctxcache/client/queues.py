"""Queues on session contexts: the service refuses overlapping calls on a context, so calls wait here.

A call waits for a turn before the first byte is sent, and keeps the turn until the end of the answer or the stream.
Waiters are served in order of arrival. A context without calls costs nothing; the most recently used session contexts
are remembered.
"""

import asyncio
import weakref
from collections import OrderedDict
from typing import Any, Final

from ..errors import ContextBusyError
from .slots import Slots

__all__ = ["ContextQueue", "ContextQueues"]

# An overlap on a forgotten context is refused by the service, and then retried.
_REMEMBERED: Final = 16_384


class ContextQueue:
    """The queue of a context: a call at the head, the others behind. Without a call under way there is no queue."""

    __slots__ = ("_context_id", "_holder", "_queues", "_waiting")

    def __init__(self, queues: "ContextQueues", context_id: str) -> None:
        self._queues = queues
        self._context_id = context_id
        self._waiting: Slots | None = None  # made by the first waiter
        self.hold_here()

    def hold_here(self) -> None:
        """Note that the running task is now at the head: streams may be opened and read in different tasks."""
        task = asyncio.current_task()
        # Weakly: a task holds its result, which may be the very stream at the head.
        self._holder: weakref.ref[asyncio.Task[Any]] | None = None if task is None else weakref.ref(task)

    async def wait(self) -> None:
        """Wait until the calling task is at the head."""
        if self._holder is not None and self._holder() is asyncio.current_task():
            raise ContextBusyError(
                f"this task itself holds a stream open on the context {self._context_id}: read it to its end or "
                "close it before the next call, or pass serialize=False"
            )
        if self._waiting is None:
            self._waiting = Slots(free=0)
        try:
            await self._waiting.wait()
        except asyncio.CancelledError:
            if self._waiting.free:  # cancelled in the moment of coming to the head, with nobody behind
                self._queues.forget(self._context_id, self)
            raise
        self.hold_here()

    def release(self) -> None:
        """Let the next call in line come to the head."""
        self._holder = None
        if self._waiting is not None:
            self._waiting.release()
        if self._waiting is None or self._waiting.free:
            self._queues.forget(self._context_id, self)


class ContextQueues:
    """The queues of a session, by context id."""

    def __init__(self) -> None:
        self._queues: dict[str, ContextQueue] = {}
        self._serial: OrderedDict[str, None] = OrderedDict()

    def mark_serial(self, context_id: str) -> None:
        """Note that calls on a context must not overlap."""
        self._serial[context_id] = None
        self._serial.move_to_end(context_id)
        if len(self._serial) > _REMEMBERED:
            self._serial.popitem(last=False)

    def is_serial(self, context_id: str) -> bool:
        """Whether calls on a context are known not to overlap."""
        known = context_id in self._serial
        if known:
            self._serial.move_to_end(context_id)
        return known

    async def take(self, context_id: str) -> ContextQueue:
        """Wait in line on a context; return the queue, to be released.

        Raises:
            ContextBusyError: the calling task itself is at the head, and would wait for ever.
        """
        queue = self._queues.get(context_id)
        if queue is None:
            queue = self._queues[context_id] = ContextQueue(self, context_id)
        else:
            await queue.wait()
        return queue

    def forget(self, context_id: str, queue: ContextQueue) -> None:
        """Drop the queue of a context without calls; the queue itself asks for this, perhaps twice."""
        if self._queues.get(context_id) is queue:
            del self._queues[context_id]

    def __len__(self) -> int:
        return len(self._queues)
