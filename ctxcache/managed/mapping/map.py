"""`Map`: many questions, as many at once as the service takes, the answers as they come."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

from ...config import Retry
from ...errors import CtxCacheError, InvalidInputError
from .answers import Answer, Answers
from .scheduler import AskOne, Scheduler
from .source import Source

__all__ = ["Map"]

Question = TypeVar("Question")


class Map(Generic[Question]):
    """Asks many questions; an async iterator of an `Answer` for each.

    Nothing is asked before it is iterated. Iterate it to its end, or leave it whenever you like: `async with` and
    `aclose` cancel what is under way and wait for it to end; one that is forgotten cancels it when it is collected.

    An error is a result like any other. An exception out of `questions` ends the map: the results under way are
    delivered, then it is raised. One out of `ask` that is not of this package's family ends it at once: it is raised in
    place of the next answer, and what is under way is cancelled.

    Args:
        ask: asks one question.
        questions: any iterable or async iterable; read as questions can be asked, a million take no more memory than a
            few. If it is a generator, it is closed at the end.
        concurrency: the most calls at once. How many there are, the service decides: see `limiter`.
        ordered: deliver the answers in the order of the questions, not as they complete.
        retry: when to repeat. Of a 429, the lengths of the pauses, `max_retry_after` and `max_elapsed` count: for how
            long nothing at all may succeed before a question fails with it; `attempts` is for the other errors.
        repeatable: whether a question that may have run is asked again (a lost reply, a 5xx), as is harmless on a
            `common_prefix` context.
        on_retry: is told of each question that goes again: the error, the attempts so far, the pause in seconds.
        clock, sleep, random: monotonic seconds, how to wait some, a random number in [0, 1).

    Raises:
        InvalidInputError: for arguments that are none of these.
    """

    _work: Scheduler[Question] | None = None  # for __del__, until all is checked

    def __init__(
        self,
        ask: AskOne[Question],
        questions: Iterable[Question] | AsyncIterable[Question],
        *,
        concurrency: int = 64,
        ordered: bool = False,
        retry: Retry | None = None,
        repeatable: bool = True,
        on_retry: Callable[[CtxCacheError, int, float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not isinstance(questions, Iterable | AsyncIterable) or isinstance(questions, str | bytes | Mapping):
            raise InvalidInputError.of("questions", type(questions), "an iterable or async iterable of questions")
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise InvalidInputError.of("concurrency", concurrency, "a whole number from 1 up")
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidInputError.of("retry", retry, "a Retry, or None for the default one")
        policy = Retry() if retry is None else retry
        self._work = Scheduler(
            ask,
            Source(questions),
            Answers(ordered=ordered),
            concurrency=concurrency,
            policy=policy,
            repeatable=repeatable,
            on_retry=on_retry,
            clock=clock,
            sleep=sleep,
            random=random,
        )

    def __aiter__(self) -> AsyncIterator[Answer[Question]]:
        return self

    async def __anext__(self) -> Answer[Question]:
        """Wait for the next answer; several tasks may share the iteration."""
        assert self._work is not None  # noqa: S101  # set where __init__ came to its end
        return await self._work.next()

    async def aclose(self) -> None:
        """End it: cancel what is under way, wait for it to end, close the questions. Harmless to repeat."""
        if self._work is not None:
            await self._work.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._work is not None:
            self._work.forgotten()
