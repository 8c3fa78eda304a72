"""`Retries`: when the calls of a map may start, and after each failure, whether its question is asked again.

Three rules, one for each kind of failure:

- 429: the `Limiter` decides, and the question waits for room with all others.
- No connection: the `Outage` decides; all questions wait, and one of them tries.
- Any other error: `retry.next_delay` decides, for this question alone.

What happens is logged here, once for many questions, and told to `on_retry` for each.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any, Final

import attrs

from ...config import Retry
from ...errors import CtxCacheError, RateLimitError
from ...log import log
from ...retry import may_repeat, next_delay, unreachable
from .limiter import Call, Limiter
from .outage import Outage, State, proves_connection
from .source import Job

__all__ = ["Attempt", "Retries"]

_LONG_PAUSE: Final = 1.0  # seconds; shorter pauses after a 429 are part of finding the limit


@attrs.frozen
class Attempt:
    """An attempt under way.

    Attributes:
        call: its call, for the limiter.
        probe: whether its answer ends an outage.
    """

    call: Call
    probe: bool


class Retries:
    """The attempts of one map; the arguments are those of `Map`."""

    def __init__(
        self,
        *,
        concurrency: int,
        policy: Retry,
        repeatable: bool,
        on_retry: Callable[[CtxCacheError, int, float], object] | None,
        paused: Callable[[], float] | None,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._limiter = Limiter(concurrency, policy)
        self._outage = Outage(policy)
        self._closed_by: RateLimitError | None = None  # asked for a wait longer than the policy allows
        self._policy = policy
        self._repeatable = repeatable
        self._on_retry = on_retry
        self._paused = paused
        self._clock = clock
        self._random = random
        self._rate_limited = False  # whether a 429 came
        self._delayed = 0  # questions that failed and wait for their next attempt

    # --- starts

    @property
    def resume_at(self) -> float:
        """No call starts before."""
        return max(self._limiter.resume_at, self._outage.resume_at)

    def look(self, now: float) -> None:
        """Join a pause of other processes."""
        if self._paused is None or (seconds := self._paused()) <= 0:
            return
        before = max(self._limiter.resume_at, now)
        self._limiter.hold(seconds, now)
        if (longer := self._limiter.resume_at - before) > 0:
            level = logging.WARNING if longer >= _LONG_PAUSE else logging.DEBUG
            log.log(level, "map: the service asked another process to wait, the next call in %.2f s", seconds)

    def may_start(self, now: float) -> bool:
        """Whether one more call may start."""
        return self._limiter.may_start(now) and self._outage.may_start(now)

    def start(self, now: float) -> Attempt:
        """Begin an attempt."""
        return Attempt(self._limiter.start(now), self._outage.start())

    def refusal(self, now: float) -> RateLimitError | None:
        """Return the 429 that asked for a wait longer than the policy allows, while that wait lasts."""
        if self._closed_by is None or now >= self._limiter.closed_until:
            return None
        error = copy.copy(self._closed_by)
        error.attempts = 0
        return error

    # --- ends

    def succeeded(self, attempt: Attempt) -> None:
        """Note an answer."""
        self._limiter.succeeded(attempt.call, self._clock())
        self._connected(probe=attempt.probe, connected=True)

    def failed(self, job: Job[Any], failure: CtxCacheError, attempt: Attempt) -> float | None:
        """Note a failure; return the seconds that the question waits on its own, or None if it has failed for good.

        After a wait call `waited`.
        """
        if isinstance(failure, RateLimitError):
            self._connected(probe=attempt.probe, connected=True)
            return 0.0 if self._refused(job, failure, attempt.call) else None
        self._limiter.failed()
        if unreachable(failure):
            return 0.0 if self._unreachable(job, failure, probe=attempt.probe) else None
        self._connected(probe=attempt.probe, connected=proves_connection(failure))
        return self._delay(job, failure, attempt.call.at)

    def waited(self) -> None:
        """Note the end of a question's wait."""
        self._delayed -= 1

    def _refused(self, job: Job[Any], failure: RateLimitError, call: Call) -> bool:
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

    def _unreachable(self, job: Job[Any], failure: CtxCacheError, *, probe: bool) -> bool:
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

    def _connected(self, *, probe: bool, connected: bool) -> None:
        """Note the end of a call that needed no connection, or had one."""
        if self._outage.ended(probe=probe, connected=connected):
            log.warning("map: connected again after %.1f s", self._clock() - self._outage.since)

    def _delay(self, job: Job[Any], failure: CtxCacheError, began: float) -> float | None:
        """Return the seconds until the question may be retried, None if it may not."""
        if failure.attempts > 1:
            return None  # repeated already, by the create of a context
        if not may_repeat(failure, repeatable=self._repeatable):
            return None
        if not job.failures:
            job.failing_since = began
        job.failures += 1
        elapsed = self._clock() - job.failing_since
        delay = next_delay(self._policy, failure, attempt=job.failures, elapsed=elapsed, jitter=self._random())
        if delay is None:
            return None
        # A connection lost under many questions makes one warning.
        level = logging.DEBUG if self._delayed else logging.WARNING
        log.log(level, "map: %s, attempt %d, again in %.2f s", type(failure).__name__, job.attempts, delay)
        self._tell(job, failure, delay, again=True)
        self._delayed += 1
        return delay

    def _tell(self, job: Job[Any], failure: CtxCacheError, pause: float, *, again: bool) -> None:
        if again and self._on_retry is not None:
            self._on_retry(failure, job.attempts, pause)
