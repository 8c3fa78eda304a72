"""`Line`: the questions of all batches of a worker, asked by one `Map`.

So the rate that the service allows is learned once for the worker, not anew with each batch; and while the last
questions of a batch are answered, the first of the next batch are asked.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias

from ..errors import SessionError
from ..log import log
from ..managed import Answer, Map

__all__ = ["Line", "StartMap"]

StartMap: TypeAlias = Callable[[AsyncIterable[Any]], AbstractAsyncContextManager[Map[Any]]]


class _Batch:
    """The questions of a batch, and the answers so far."""

    def __init__(self, questions: Sequence[Any]) -> None:
        self.questions = questions
        self.answers: list[Any] = [None] * len(questions)
        self.left = len(questions)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, row: int, answer: Answer[Any]) -> None:
        self.answers[row] = answer
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Line:
    """Asks the questions of any number of concurrent batches, first come, first served, in one event loop.

    A task holds the map and all that the map needs: cancelling the task, as `asyncio.run` does at the end, closes
    everything.

    Args:
        start: opens the map of the given questions; left at the end.

    Attributes:
        ended: whether the line asks no more questions.
    """

    def __init__(self, start: StartMap) -> None:
        self._failure: Exception = SessionError("the worker ended")
        self.ended = False
        self._waiting: deque[_Batch] = deque()
        self._open: set[_Batch] = set()
        self._news = asyncio.Event()
        self._asked: dict[int, tuple[_Batch, int]] = {}  # by the place among all questions of the map
        self._task = asyncio.get_running_loop().create_task(self._serve(start))

    async def ask(self, questions: Sequence[Any]) -> list[Answer[Any]]:
        """Ask the questions of a batch, at least one; return the answers in the same order.

        If the caller is cancelled, no further question of the batch is asked; answers under way are dropped.

        Raises:
            CtxCacheError: the session or the store cannot be opened, or the line was closed.
        """
        if self.ended:
            raise self._failure.with_traceback(None)  # else each call would add frames to those of the one before
        batch = _Batch(questions)
        self._waiting.append(batch)
        self._open.add(batch)
        self._news.set()
        try:
            await batch.done
        finally:
            self._open.discard(batch)
        return batch.answers

    async def aclose(self) -> None:
        """Cancel the calls under way, close everything. Batches under way get a `SessionError`."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _serve(self, start: StartMap) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self._run(start, stack)
        except Exception as error:  # at the end of the process a store's thread can no longer be waited for
            log.debug("cluster: closing failed: %s", type(error).__name__)

    async def _run(self, start: StartMap, stack: AsyncExitStack) -> None:
        try:
            answers = await stack.enter_async_context(start(self._questions()))
            async for answer in answers:
                batch, row = self._asked.pop(answer.index)
                batch.put(row, answer)
        except Exception as error:
            self._failure = error
        finally:
            self.ended = True
            for batch in self._open:
                if not batch.done.done():
                    batch.done.set_exception(self._failure)

    async def _questions(self) -> AsyncIterator[Any]:
        """Yield the questions of the waiting batches, as fast as the map takes them."""
        index = 0
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            batch = self._waiting.popleft()
            for row, question in enumerate(batch.questions):
                if batch.done.done():  # the caller was cancelled
                    break
                self._asked[index] = batch, row
                index += 1
                yield question
