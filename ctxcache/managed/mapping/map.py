"""`Map`: asks many questions, as many at once as the service takes, and delivers the answers as they come."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

from ... import checks
from ...config import Retry
from ...errors import CtxCacheError, InvalidInputError
from .answers import Answer, Answers
from .scheduler import AskOne, Scheduler
from .source import Source

__all__ = ["Map"]

QuestionT = TypeVar("QuestionT")


class Map(Generic[QuestionT]):
    """Asks many questions; an async iterator of one `Answer` a question.

    Nothing is asked before the first iteration. Iterate to the end, or leave at any time: `async with` and `aclose`
    cancel the calls under way and wait for them to end; a map that is forgotten cancels them when garbage-collected.

    An error is a result like any other. An exception raised by `questions` ends the map: results under way are
    delivered first, then the exception is raised. An exception of `ask` outside this package's family ends the map at
    once: calls under way are cancelled, and the exception is raised in place of the next answer.

    Args:
        ask: asks one question.
        questions: any iterable or async iterable, read no faster than questions are asked, so that a million take no
            more memory than a few. A generator is closed at the end.
        concurrency: upper limit of concurrent calls; the actual number follows the service's rate limit: see `limiter`
            for calls at once, `pace` for calls in a time.
        ordered: deliver the answers in the order of the questions, not as they complete.
        retry: when to repeat a question. A `Retry-After` pauses the whole map; a question fails with the 429 once no
            call has succeeded for `max_elapsed` seconds. If the service asks for more than `max_retry_after`, the
            questions fail with that 429, and none is asked before the time named. While no connection can be made, all
            questions wait and one of them tries, for up to `max_elapsed` seconds: see `outage`. `attempts` is for all
            other errors.
        repeatable: whether to repeat a question that may have run (a lost reply, a 5xx); harmless on a `common_prefix`
            context.
        on_retry: called for each question that is retried, with the error, the attempts so far, the pause in seconds.
        paused: returns the seconds for which the service asked other processes to wait, or 0; called before each start.
            Whatever is returned, a call starts when none has started for `Retry.max_retry_after` seconds.
        clock, sleep, random: monotonic seconds, how to wait, a random number in [0, 1).

    Raises:
        InvalidInputError: an argument has the wrong type, or is out of range.
    """

    _work: Scheduler[QuestionT] | None = None  # for __del__, if __init__ fails

    def __init__(
        self,
        ask: AskOne[QuestionT],
        questions: Iterable[QuestionT] | AsyncIterable[QuestionT],
        *,
        concurrency: int = 64,
        ordered: bool = False,
        retry: Retry | None = None,
        repeatable: bool = True,
        on_retry: Callable[[CtxCacheError, int, float], object] | None = None,
        paused: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not isinstance(questions, Iterable | AsyncIterable) or isinstance(questions, str | bytes | Mapping):
            raise InvalidInputError.of("questions", type(questions), "an iterable or async iterable of questions")
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidInputError.of("retry", retry, "a Retry, or None for the default one")
        policy = Retry() if retry is None else retry
        self._work = Scheduler(
            ask,
            Source(questions),
            Answers(ordered=ordered),
            concurrency=checks.whole("concurrency", concurrency, 1),
            policy=policy,
            repeatable=repeatable,
            on_retry=on_retry,
            paused=paused,
            clock=clock,
            sleep=sleep,
            random=random,
        )

    def __aiter__(self) -> AsyncIterator[Answer[QuestionT]]:
        return self

    async def __anext__(self) -> Answer[QuestionT]:
        """Wait for the next answer; several tasks may share the iteration."""
        assert self._work is not None  # noqa: S101  # set unless __init__ failed
        return await self._work.next()

    async def aclose(self) -> None:
        """Cancel the calls under way, wait for them to end, close the questions. Safe to call again."""
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
            self._work.abandon_soon()
