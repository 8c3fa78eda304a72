"""Ending a task's wait without leaving a cancellation behind, as `asyncio.timeout()` does."""

import asyncio

__all__ = ["CancelScope"]


class CancelScope:
    """A handle on the running task, by which others may interrupt the task.

    `cancel()` interrupts the task. Where the task catches the `CancelledError`, `cancelled_elsewhere()` tells whether
    anybody else cancelled the task as well; if not, the task goes on as if never cancelled::

        scope = CancelScope()
        try:
            return await answer
        except asyncio.CancelledError:
            if not scope.cancelled or scope.cancelled_elsewhere():
                raise
        raise SessionError("closed")

    Attributes:
        cancelled: whether `cancel()` was called.
    """

    __slots__ = ("_before", "_task", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()

    def cancel(self) -> None:
        """Interrupt the task."""
        if self._task is not None and not self.cancelled:
            self.cancelled = True
            self._task.cancel()

    def cancelled_elsewhere(self) -> bool:
        """Whether somebody besides this scope cancelled the task; the scope's own cancellation is taken back.

        To be called once, where a `CancelledError` was caught. False also where the error came out of the awaited code
        alone and nobody cancelled the task.
        """
        if self._task is None:
            return True
        requests = self._task.uncancel() if self.cancelled else self._task.cancelling()
        return requests > self._before
