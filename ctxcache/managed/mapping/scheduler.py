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
import copy
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from ...client.calls import outage_awaited
from ...config import Retry
from ...errors import CtxCacheError, RateLimitError, SessionError
from ...log import log
from ...models import ChatCompletion
from ...retry import may_repeat, next_delay, unreachable
from .answers import Answer, Answers
from .limiter import Call, Limiter
from .outage import Outage, State, answers
from .source import Job, Source

__all__ = ["AskOne", "Scheduler"]

QuestionT = TypeVar("QuestionT")
AskedT = TypeVar("AskedT", contravariant=True)


_LONG_PAUSE: Final = 1.0  # seconds; shorter pauses after a 429 are part of finding the limit
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
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._source = source
        self._answers = answers
        self._window = _WINDOW * concurrency
        self._limiter = Limiter(concurrency, policy)
        self._outage = Outage(policy)
        self._closed_by: RateLimitError | None = None  # asked for a wait longer than the policy allows
        self._policy = policy
        self._once = attrs.evolve(policy, attempts=1)
        self._repeatable = repeatable
        self._on_retry = on_retry
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._rate_limited = False  # whether a 429 came
        self._pausing = False
        self._delayed = 0  # questions that failed and wait for their next attempt
        self._backlog: deque[Job[QuestionT]] = deque()  # waiting for the limiter
        self._outstanding = 0  # questions taken and not yet delivered
        self._feeding = True
        self._closed = False
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
        while self._backlog and self._may_start(now):
            job = self._backlog.popleft()
            if now < self._limiter.closed_until:
                self._refuse(job)
            else:
                self._spawn(self._attempt(job, self._limiter.start(now), probe=self._outage.start()))
        if now < self._resume_at:
            if not self._pausing:
                self._pausing = True
                self._spawn(self._pause())
        elif self._has_room(now):
            self._room.set()

    @property
    def _resume_at(self) -> float:
        """No call starts before."""
        return max(self._limiter.resume_at, self._outage.resume_at)

    def _may_start(self, now: float) -> bool:
        return self._limiter.may_start(now) and self._outage.may_start(now)

    def _has_room(self, now: float) -> bool:
        """Whether another question could be asked at once."""
        return not self._backlog and self._outstanding < self._window and self._may_start(now)

    async def _pause(self) -> None:
        while (wait := self._resume_at - self._clock()) > 0:
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

    async def _attempt(self, job: Job[QuestionT], call: Call, *, probe: bool) -> None:
        """Ask once; deliver the answer, or queue the question again."""
        job.attempts += 1
        outage_awaited.set(True)  # for this task, and the create of a context if the question needs one
        try:
            completion = await self._ask(job.question, retry=self._once)
        except CtxCacheError as error:
            # The frames of the traceback would live as long as the answer.
            failure = error.with_traceback(None)
        else:
            self._limiter.succeeded(call, self._clock())
            self._connected(probe=probe, answered=True)
            self._deliver(Answer(job.index, job.question, completion))
            return
        if isinstance(failure, RateLimitError):
            self._connected(probe=probe, answered=True)
            again = self._refused(job, failure, call)
        else:
            self._limiter.failed()
            if unreachable(failure):
                again = self._unreachable(job, failure, probe=probe)
            else:
                self._connected(probe=probe, answered=answers(failure))
                again = await self._failed(job, failure, call.at)
        if again:
            self._backlog.append(job)
            self.pump()
        else:
            failure.attempts = max(job.attempts, failure.attempts)
            self._deliver(Answer(job.index, job.question, error=failure))

    def _refused(self, job: Job[QuestionT], failure: RateLimitError, call: Call) -> bool:
        """Pass a 429 to the limiter; return whether to retry the question."""
        limiter, now = self._limiter, self._clock()
        before = max(limiter.resume_at, now)
        again = limiter.refused(call, failure, now, self._random())
        if now < limiter.closed_until:
            self._closed_by = failure
        pause = max(limiter.resume_at - now, 0.0)
        # A service is asked for one call more now and then; after the first, such a refusal is no news.
        news = not self._rate_limited or limiter.resume_at - before >= _LONG_PAUSE
        self._rate_limited = True
        level = logging.WARNING if news else logging.DEBUG
        log.log(level, "map: RateLimitError, at most %d at once, the next in %.2f s", limiter.limit, pause)
        self._tell(job, failure, pause, again=again)
        return again

    def _refuse(self, job: Job[QuestionT]) -> None:
        """Deliver the 429 that asked for a wait longer than the policy allows, in place of a call."""
        assert self._closed_by is not None  # noqa: S101  # set with `closed_until`
        error = copy.copy(self._closed_by)
        error.attempts = job.attempts
        self._deliver(Answer(job.index, job.question, error=error))

    def _unreachable(self, job: Job[QuestionT], failure: CtxCacheError, *, probe: bool) -> bool:
        """Note that no connection could be made; return whether to ask the question again."""
        outage, now = self._outage, self._clock()
        before = outage.state
        again = outage.failed(failure, now, self._random(), probe=probe)
        if before is State.UP:
            limit = self._policy.max_elapsed
            log.warning("map: no connection, all questions wait for up to %g s: %s", limit, failure.message)
        if outage.state is not before and outage.state is State.GIVEN_UP:
            log.warning("map: no connection for %.1f s, the questions fail", now - outage.since)
        self._tell(job, failure, max(outage.resume_at - now, 0.0), again=again)
        return again

    def _connected(self, *, probe: bool, answered: bool) -> None:
        """Note the end of a call that needed no connection, or had one."""
        if self._outage.ended(probe=probe, answered=answered):
            log.warning("map: connected again after %.1f s", self._clock() - self._outage.since)

    def _tell(self, job: Job[QuestionT], failure: CtxCacheError, pause: float, *, again: bool) -> None:
        if again and self._on_retry is not None:
            self._on_retry(failure, job.attempts, pause)

    async def _failed(self, job: Job[QuestionT], failure: CtxCacheError, began: float) -> bool:
        """Wait until the question may be retried; False if it may not."""
        if failure.attempts > 1:
            return False  # repeated already, by the create of a context
        if not may_repeat(failure, repeatable=self._repeatable):
            return False
        if not job.failures:
            job.failing_since = began
        job.failures += 1
        elapsed = self._clock() - job.failing_since
        delay = next_delay(self._policy, failure, attempt=job.failures, elapsed=elapsed, jitter=self._random())
        if delay is None:
            return False
        # A connection lost under many questions makes one warning.
        level = logging.DEBUG if self._delayed else logging.WARNING
        log.log(level, "map: %s, attempt %d, again in %.2f s", type(failure).__name__, job.attempts, delay)
        self._tell(job, failure, delay, again=True)
        self._delayed += 1
        self.pump()  # another question may start meanwhile
        try:
            await self._sleep(delay)
        finally:
            self._delayed -= 1
        return True

    def _deliver(self, answer: Answer[QuestionT]) -> None:
        self._answers.put(answer)
        self._news.set()
        self.pump()
