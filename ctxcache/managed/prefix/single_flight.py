"""`SingleFlight`: one piece of work under way, and any number of tasks that wait for its one result."""

import asyncio
import copy
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from ...errors import CtxCacheError, SessionError

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work begun for whoever joins.

    A task that is cancelled while it waits leaves the work to the others; the last one of them cancels it.

    Attributes:
        fresh: a note of who began it: whether nothing older will do as its result.
    """

    def __init__(self, work: Coroutine[Any, Any, T], *, fresh: bool = False) -> None:
        self.fresh = fresh
        self._waiters = 0
        self._given_up = False
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(_retrieve)

    @property
    def mine(self) -> bool:
        """Whether the running task is the one that does the work."""
        return asyncio.current_task() is self._task

    @property
    def over(self) -> bool:
        """Whether it is too late to join: it is done, all who waited have left, or its event loop is closed."""
        # Not task.cancelling(): time limits within the work cancel it, too, for a moment.
        return self._task.done() or self._given_up or self._task.get_loop().is_closed()

    async def join(self) -> T:
        """Wait for the result.

        Raises:
            CtxCacheError: a copy of what the work failed with, for each who waits; and if it was cancelled by somebody
                else, or is done in another event loop.
        """
        task = self._task
        if task.get_loop() is not asyncio.get_running_loop():
            raise SessionError("the context is being created in another event loop: use it in one only")
        self._waiters += 1
        try:
            await asyncio.wait([task])  # which leaves it alone when the waiter is cancelled
        finally:
            self._waiters -= 1
            if not self._waiters and not task.done():
                self._given_up = True
                task.cancel()
        if task.cancelled():
            raise SessionError("the creation of the context was cancelled from outside")
        error = task.exception()
        if error is None:
            return task.result()
        raise copy.copy(error) if isinstance(error, CtxCacheError) else error


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Look at the error of work that nobody waits for any more, or asyncio complains of it."""
    if not task.cancelled():
        task.exception()
