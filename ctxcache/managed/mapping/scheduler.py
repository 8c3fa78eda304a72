"""`Scheduler`: the tasks of a map, and the state they share.

There are three kinds of tasks. One feeder takes questions from their source; each attempt to ask a question is a task;
during a pause or an outage, one task sleeps. They meet in `Scheduler.pump`, which is called after every event and never
waits: it starts the attempts that may start, and wakes the feeder if there is room for another question. So a result
costs the same at any concurrency, and neither a slow source nor a slow reader delays the other questions.

A question is taken only when it could be asked at once, and answers not yet fetched count against the window. So memory
is bounded: `concurrency` calls under way, twice as many questions in all.

The tasks know the `Scheduler` and not the `Map`: a forgotten `Map` is garbage-collected, and cancels them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from ...client.calls import outage_awaited
from ...config import Retry
from ...errors import CtxCacheError, SessionError
from ...log import log
from ...models import ChatCompletion
from .answers import Answer, Answers
from .retries import Attempt, Retries
from .source import Job, Source

__all__ = ["AskOne", "Scheduler"]

QuestionT = TypeVar("QuestionT")
AskedT = TypeVar("AskedT", contravariant=True)


_WINDOW: Final = 2  # questions taken and not yet delivered, per call that may be under way


class AskOne(Protocol[AskedT]):
    """Asks one question of a map."""

    def __call__(self, question: AskedT, /, *, retry: Retry) -> Awaitable[ChatCompletion]:
        """Ask under this policy, which allows one attempt: the map itself repeats, with all questions in view.

        An error with more than one attempt was repeated elsewhere, and is not repeated by the map.
        """
        ...


class Scheduler(Generic[QuestionT]):
    """One running map; the arguments are those of `Map`."""

    def __init__(
        self,
        ask: AskOne[QuestionT],
        source: Source[QuestionT],
        answers: Answers[QuestionT],
        *,
        concurrency: int,
        policy: Retry,
        repeatable: bool,
        on_retry: Callable[[CtxCacheError, int, float], object] | None,
        paused: Callable[[], float] | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._source = source
        self._answers = answers
        self._window = _WINDOW * concurrency
        self._retries = Retries(
            concurrency=concurrency,
            policy=policy,
            repeatable=repeatable,
            on_retry=on_retry,
            paused=paused,
            clock=clock,
            random=random,
        )
        self._once = attrs.evolve(policy, attempts=1)
        self._clock = clock
        self._sleep = sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog: deque[Job[QuestionT]] = deque()  # waiting for the limiter
        self._outstanding = 0  # questions taken and not yet delivered
        self._feeding, self._pausing, self._closed = True, False, False
        self._failure: BaseException | None = None
        self._room = asyncio.Event()  # wakes the feeder
        self._news = asyncio.Event()  # wakes the readers

    # --- for the reader

    async def next(self) -> Answer[QuestionT]:
        """Wait for the next answer; the first call starts the map.

        Raises:
            StopAsyncIteration: at the end.
            SessionError: called in another event loop than before.
        """
        self._begin()
        while not self._closed:
            answer = self._answers.take()
            if answer is not None:
                self._outstanding -= 1
                self.pump()
                return answer
            if not self._feeding and not self._outstanding:
                break
            self._news.clear()
            await self._news.wait()
        failure = self._failure
        await self.aclose()  # a pause may still be running
        raise StopAsyncIteration if failure is None else failure

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            if not self._closed:
                self._spawn(self._feed())
        elif self._loop is not loop:
            raise SessionError("the map belongs to another event loop")

    async def aclose(self) -> None:
        """Cancel all tasks, wait for their end, close the questions."""
        self._failure = None
        self._abandon()
        while others := self._tasks - {asyncio.current_task()}:  # the iterable of questions may close the map
            await asyncio.wait(others)
        await self._close_source()

    def abandon_soon(self) -> None:
        """Cancel all tasks soon; called from the garbage collector, in any thread."""
        if self._loop is not None and self._tasks:
            with suppress(RuntimeError):  # the loop is closed, and has cancelled them
                self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        self._closed = True
        self._backlog.clear()
        self._news.set()
        for task in tuple(self._tasks):
            task.cancel()

    # --- for the tasks

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Forget a task. If it failed, its question is lost, which ends the map."""
        self._tasks.discard(task)
        if task.cancelled():
            error: BaseException | None = SessionError("the map was cancelled from outside")
        else:
            error = task.exception()
        if error is not None and not self._closed:
            self._failure = error
            self._abandon()

    def pump(self) -> None:
        """Start the attempts that may start; called after every event, never waits."""
        if self._closed:
            return
        now = self._clock()
        self._retries.look(now)
        while self._backlog and self._retries.may_start(now):
            job = self._backlog.popleft()
            refusal = self._retries.refusal(now)
            if refusal is None:
                self._spawn(self._attempt(job, self._retries.start(now)))
            else:
                self._fail(job, refusal)
        if now < self._retries.resume_at:
            if not self._pausing:
                self._pausing = True
                self._spawn(self._pause())
        elif self._has_room(now):
            self._room.set()

    def _has_room(self, now: float) -> bool:
        """Whether another question could be asked at once."""
        return not self._backlog and self._outstanding < self._window and self._retries.may_start(now)

    async def _pause(self) -> None:
        while (wait := self._retries.resume_at - self._clock()) > 0:
            await self._sleep(wait)
        self._pausing = False
        self.pump()

    async def _feed(self) -> None:
        """Take questions as long as there is room."""
        try:
            while True:
                while not self._has_room(self._clock()):
                    self._room.clear()
                    await self._room.wait()
                job = await self._source.next()
                if job is None:
                    break
                self._outstanding += 1
                self._backlog.append(job)  # a retried question may have taken the slot
                self.pump()
        except Exception as error:
            self._failure = error  # raised after the answers under way
        finally:
            self._feeding = False
            self._news.set()
            await self._close_source()

    async def _close_source(self) -> None:
        try:
            await self._source.aclose()
        except Exception as error:  # from a `finally` of theirs, or because they are running
            log.warning("map: closing the questions failed: %s", type(error).__name__)

    async def _attempt(self, job: Job[QuestionT], attempt: Attempt) -> None:
        """Ask once; deliver the answer, or queue the question again."""
        job.attempts += 1
        outage_awaited.set(True)  # for this task, and the create of a context if the question needs one
        try:
            completion = await self._ask(job.question, retry=self._once)
        except CtxCacheError as error:
            # The frames of the traceback would live as long as the answer.
            failure = error.with_traceback(None)
        else:
            self._retries.succeeded(attempt)
            self._deliver(Answer(job.index, job.question, completion))
            return
        delay = self._retries.failed(job, failure, attempt)
        if delay is None:
            self._fail(job, failure)
            return
        if delay:
            self.pump()  # another question may start meanwhile
            await self._sleep(delay)
            self._retries.waited()
        self._backlog.append(job)
        self.pump()

    def _fail(self, job: Job[QuestionT], failure: CtxCacheError) -> None:
        failure.attempts = max(job.attempts, failure.attempts)
        self._deliver(Answer(job.index, job.question, error=failure))

    def _deliver(self, answer: Answer[QuestionT]) -> None:
        self._answers.put(answer)
        self._news.set()
        self.pump()
