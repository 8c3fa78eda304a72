"""`TurnLock`: the turns of one conversation, one at a time, in the order of the callers."""

import asyncio
import weakref
from typing import Any

from ...client.slots import Slots
from ...errors import ContextBusyError

__all__ = ["TurnLock"]


class TurnLock(Slots):
    """A first-come, first-served lock that knows its holder, so that a task cannot wait for itself."""

    __slots__ = ("_holder",)

    def __init__(self) -> None:
        super().__init__(free=1)
        self._holder: weakref.ref[asyncio.Task[Any]] | None = None

    async def take(self) -> None:
        """Wait for the lock; the caller releases it.

        Raises:
            ContextBusyError: the running task holds the lock itself.
        """
        if self._held_here():
            # By a stream, perhaps one just forgotten: its end is already queued in the event loop, in front of us.
            await asyncio.sleep(0)
            if self._held_here():
                raise ContextBusyError(
                    "this task itself holds a stream of this conversation open: read it to its end or close it before "
                    "the next question"
                )
        if self.free:
            self.free -= 1
        else:
            await self.wait()
        self.hold_here()

    def hold_here(self) -> None:
        """Make the running task the holder: a stream may be opened in one task and read in another."""
        task = asyncio.current_task()
        # Weakly: a task holds its result, and that may be the very stream that holds this lock.
        self._holder = None if task is None else weakref.ref(task)

    def disown(self) -> None:
        """Note that no task holds the lock any more, though its release is still to come: then any task may wait."""
        self._holder = None

    def release(self) -> None:
        """Hand the lock to the next caller, or free it."""
        self._holder = None
        super().release()

    def _held_here(self) -> bool:
        return self._holder is not None and self._holder() is asyncio.current_task()
