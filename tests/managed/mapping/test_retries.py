"""`retries`: each kind of failure has a rule of its own; the log has a line for many questions."""

from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    BadRequestError,
    CtxCacheError,
    InternalServerError,
    RateLimitError,
    Retry,
)
from ctxcache.managed.mapping.retries import Retries
from ctxcache.managed.mapping.source import Job

from .asking import Time

BUSY = InternalServerError("busy", status=503)
DOWN = APIConnectionError("refused")
LOST = APIConnectionError("lost", sent=True)


def too_fast(retry_after: float | None = None) -> RateLimitError:
    """A 429."""
    return RateLimitError("too fast", status=429, retry_after=retry_after)


class Told(list[tuple[CtxCacheError, int, float]]):
    """What `on_retry` was told."""

    def __call__(self, error: CtxCacheError, attempts: int, delay: float) -> None:
        """Note it."""
        self.append((error, attempts, delay))


@pytest.fixture
def told() -> Told:
    """A hook that remembers."""
    return Told()


@pytest.fixture
def make(time: Time, told: Told) -> Callable[..., Retries]:
    """Make retries that wait for at most 100 s, without jitter."""

    def make(*, repeatable: bool = True, **policy: Any) -> Retries:
        settings = Retry(**{"first_delay": 1, "max_elapsed": 100, **policy})
        return Retries(
            concurrency=8,
            policy=settings,
            repeatable=repeatable,
            on_retry=told,
            paused=None,
            clock=time.clock,
            random=lambda: 0.0,
        )

    return make


def fail(retries: Retries, time: Time, error: CtxCacheError, job: Job[str] | None = None) -> float | None:
    """Fail one attempt of a question."""
    job = Job(0, "question") if job is None else job
    job.attempts += 1
    return retries.failed(job, error, retries.start(time.now))


def test_a_429_waits_with_the_others(make: Callable[..., Retries], time: Time, told: Told) -> None:
    """A refused question waits for nothing of its own; the `Retry-After` holds all up."""
    one, error = make(), too_fast(30)
    assert fail(one, time, error) == 0
    assert one.resume_at == time.now + 30
    assert not one.may_start(time.now + 29)
    assert one.may_start(time.now + 30)
    assert told == [(error, 1, 30)]


def test_a_wait_that_is_too_long(make: Callable[..., Retries], time: Time, told: Told) -> None:
    """A longer `Retry-After` than the policy allows is final for all, until that time has passed."""
    one, error = make(max_retry_after=60), too_fast(61)
    assert one.refusal(time.now) is None
    assert fail(one, time, error) is None
    refusal = one.refusal(time.now + 60)
    assert isinstance(refusal, RateLimitError)
    assert refusal is not error
    assert (refusal.message, refusal.retry_after, refusal.attempts) == ("too fast", 61, 0)
    assert one.refusal(time.now + 61) is None
    assert told == []


def test_no_connection_waits_with_the_others(make: Callable[..., Retries], time: Time, told: Told) -> None:
    """A question without a connection waits for nothing of its own; the next call starts after a pause, alone."""
    one = make()
    assert fail(one, time, DOWN) == 0
    assert one.resume_at == time.now + 1
    assert one.may_start(time.now + 1)
    probe = one.start(time.now + 1)
    assert not one.may_start(time.now + 1)
    one.succeeded(probe)
    assert one.may_start(time.now + 1)
    assert told == [(DOWN, 1, 1)]


@pytest.mark.parametrize("error", [BUSY, LOST])
def test_any_other_error_waits_alone(
    make: Callable[..., Retries], time: Time, told: Told, error: CtxCacheError
) -> None:
    """Any other error delays the one question, longer each time, for so many attempts."""
    one, job = make(attempts=3), Job(0, "question")
    assert [fail(one, time, error, job) for _ in range(3)] == [1, 2, None]
    assert one.may_start(time.now)
    assert told == [(error, 1, 1), (error, 2, 2)]


def test_a_429_is_no_attempt(make: Callable[..., Retries], time: Time) -> None:
    """Refusals and lost connections between leave the attempts for other errors."""
    one, job = make(attempts=2), Job(0, "question")
    assert [fail(one, time, error, job) for error in (too_fast(), DOWN, BUSY, too_fast(), BUSY)] == [0, 0, 1, 0, None]


def test_final_errors(make: Callable[..., Retries], time: Time, told: Told) -> None:
    """A request that is wrong, or may have run where a repeat does harm, or was repeated elsewhere, is final."""
    repeated = InternalServerError("busy", status=503)
    repeated.attempts = 3
    assert fail(make(), time, BadRequestError("wrong", status=400)) is None
    assert fail(make(repeatable=False), time, LOST) is None
    assert fail(make(), time, repeated) is None
    assert told == []


def test_one_warning_for_many_questions(
    make: Callable[..., Retries], time: Time, log_lines: Callable[[str], list[str]]
) -> None:
    """While a question waits after a failure, the failures of others are no news; afterwards the next one is."""
    one = make()
    for _ in range(3):
        fail(one, time, LOST)
    assert log_lines("WARNING") == ["map: APIConnectionError, attempt 1, again in 1.00 s"]
    for _ in range(3):
        one.waited()
    fail(one, time, LOST)
    assert len(log_lines("WARNING")) == 2


def test_short_pauses_are_no_news(
    make: Callable[..., Retries], time: Time, log_lines: Callable[[str], list[str]]
) -> None:
    """The first 429 is a warning, and each that pauses all for long; the others are part of finding the limit."""
    one = make()
    for error in (too_fast(), too_fast(0.2), too_fast(5)):
        fail(one, time, error)
    assert len(log_lines("WARNING")) == 2


def test_a_pause_of_other_processes(time: Time, log_lines: Callable[..., list[str]]) -> None:
    """Calls wait for the pause that another process was asked for; a long one is worth one line of the log."""
    pauses = [30.0, 30.0, 0.5]
    one = Retries(
        concurrency=8,
        policy=Retry(),
        repeatable=True,
        on_retry=None,
        paused=lambda: pauses.pop(0),
        clock=time.clock,
        random=lambda: 0.0,
    )
    assert one.may_start(time.now)
    one.look(time.now)
    assert one.resume_at == time.now + 30
    one.look(time.now)
    one.look(time.now + 30)
    assert one.resume_at == time.now + 30.5
    assert log_lines("WARNING") == ["map: the service asked another process to wait, the next call in 30.00 s"]
