"""Queues on session contexts: the service refuses overlapping calls on a context, so they wait for each other here.

A turn is taken before the first byte is sent and held until the answer, or its stream, is at its end. Waiters are
served in the order they came. A context nobody waits for or works on costs nothing; of those known to be sessions,
the most recently used are remembered.
"""

import asyncio
import weakref
from collections import OrderedDict
from typing import Any, Final

from ..errors import ContextBusyError
from .slots import Slots

__all__ = ["ContextQueue", "ContextQueues"]

# Forgetting one only means that an overlap on it is refused by the service, and then repeated.
_REMEMBERED: Final = 16_384


class ContextQueue(Slots):
    """The right to call on one context, held by one call."""

    __slots__ = ("_context_id", "_holder", "_turns")

    def __init__(self, turns: "ContextQueues", context_id: str) -> None:
        super().__init__(free=0)
        self._turns = turns
        self._context_id = context_id
        self.hold_here()

    def hold_here(self) -> None:
        """Note that the running task is now the one that works with the stream."""
        task = asyncio.current_task()
        # Weakly: a task holds its result, and that may be the very stream that holds this turn.
        self._holder: weakref.ref[asyncio.Task[Any]] | None = None if task is None else weakref.ref(task)

    async def wait(self) -> None:
        """Wait until it is the calling task's turn."""
        if self._holder is not None and self._holder() is asyncio.current_task():
            raise ContextBusyError(
                f"this task itself holds a stream open on the context {self._context_id}: read it to its end or "
                "close it before the next call, or pass serialize=False"
            )
        await super().wait()
        self.hold_here()

    def release(self) -> None:
        """Give the turn to the next in line."""
        self._holder = None
        super().release()
        if self.free:
            self._turns.forget(self._context_id)


class ContextQueues:
    """The turns of one session, by context."""

    def __init__(self) -> None:
        self._held: dict[str, ContextQueue] = {}
        self._sessions: OrderedDict[str, None] = OrderedDict()

    def mark_serial(self, context_id: str) -> None:
        """Note that a context is one whose calls must not overlap."""
        self._sessions[context_id] = None
        self._sessions.move_to_end(context_id)
        if len(self._sessions) > _REMEMBERED:
            self._sessions.popitem(last=False)

    def is_serial(self, context_id: str) -> bool:
        """Whether the context is known to be one whose calls must not overlap."""
        known = context_id in self._sessions
        if known:
            self._sessions.move_to_end(context_id)
        return known

    async def take(self, context_id: str) -> ContextQueue:
        """Wait for a turn on a context.

        Raises:
            ContextBusyError: when the calling task holds it itself, and would wait for ever.
        """
        turn = self._held.get(context_id)
        if turn is None:
            turn = self._held[context_id] = ContextQueue(self, context_id)
        else:
            await turn.wait()
        return turn

    def forget(self, context_id: str) -> None:
        """Drop a context nobody waits for; called by its turn."""
        del self._held[context_id]

    def __len__(self) -> int:
        return len(self._held)
