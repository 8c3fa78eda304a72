"""`SingleFlight`: one task at work, and any number of callers that wait for its result."""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ..errors import CtxCacheError, SessionError

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work shared by all callers that join.

    A caller that is cancelled while waiting leaves the work to the others. The last caller to leave cancels the work,
    unless the work is worth keeping: then the next caller to join gets the result.

    Args:
        work: the work.
        fresh: whether the result must be newly created.
        keep: asked when the last caller leaves, whether the work is worth keeping.

    Attributes:
        fresh: as above.
    """

    def __init__(
        self, work: Coroutine[Any, Any, T], *, fresh: bool = False, keep: Callable[[], bool] = lambda: False
    ) -> None:
        self.fresh = fresh
        self._keep = keep
        self._waiters = 0
        self._abandoned = False
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(_retrieve)

    @property
    def mine(self) -> bool:
        """Whether the running task is the one at work."""
        return asyncio.current_task() is self._task

    @property
    def over(self) -> bool:
        """Whether joining is too late: the work is done or abandoned, or its event loop is closed."""
        # Not task.cancelling(): time limits inside the work cancel it for a moment, too.
        return self._task.done() or self._abandoned or self._task.get_loop().is_closed()

    async def join(self) -> T:
        """Wait for the result.

        Raises:
            CtxCacheError: the work failed (each caller gets a copy), was cancelled from outside, or runs in another
                event loop.
        """
        task = self._task
        if task.get_loop() is not asyncio.get_running_loop():
            raise SessionError("the context is being created in another event loop: use it in one only")
        self._waiters += 1
        try:
            await asyncio.wait([task])  # which leaves the task alone when the caller is cancelled
        finally:
            self._waiters -= 1
            if not self._waiters and not task.done() and not self._keep():
                self._abandoned = True
                task.cancel()
        if task.cancelled():
            raise SessionError("the creation of the context was cancelled from outside")
        error = task.exception()
        if error is None:
            return task.result()
        raise copy.copy(error) if isinstance(error, CtxCacheError) else error


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Retrieve the error of abandoned work, or asyncio would report it as never retrieved."""
    if not task.cancelled():
        task.exception()
