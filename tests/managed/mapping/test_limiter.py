"""`limiter`: as many calls at once as the service takes, and nobody rushes after a 429."""

from typing import Any

import pytest

from ctxcache import RateLimitError, Retry
from ctxcache.managed.mapping.limiter import Limiter


def refusal(retry_after: float | None = None) -> RateLimitError:
    """A 429."""
    return RateLimitError("too fast", status=429, retry_after=retry_after)


def limiter(concurrency: int = 64, **policy: Any) -> Limiter:
    """A limiter under test."""
    return Limiter(concurrency, Retry(**{"first_delay": 1, "max_elapsed": 100, **policy}))


def start(limiter: Limiter, calls: int, now: float = 1000.0) -> list[int]:
    """Start so many calls; return their windows."""
    assert limiter.may_start(now)
    return [limiter.start() for _ in range(calls)]


def test_begins_with_a_few() -> None:
    """It begins with 8 calls at once, or fewer if no more are allowed; then nobody may start."""
    assert [limiter(most).limit for most in (1, 7, 8, 64)] == [1, 7, 8, 8]
    full = limiter()
    start(full, 8)
    assert not full.may_start(1000)
    full.failed()
    assert full.may_start(1000)


def test_slow_start_is_quick() -> None:
    """Until the first 429 each success adds one, up to the concurrency asked for."""
    one = limiter(20)
    for _ in range(100):
        one.succeeded(one.start())
    assert (one.limit, one.running) == (20, 0)


def test_a_window_is_cut_once() -> None:
    """A 429 halves the limit, once for all calls that were under way together, and again for the next window."""
    one = limiter()
    windows = start(one, 8)
    for window in windows[:4]:
        one.refused(window, refusal(), 1000, 0)
    assert (one.limit, one.running) == (4, 4)
    one.failed()
    later = start(one, 1, one.resume_at)
    one.refused(later[0], refusal(), one.resume_at, 0)
    assert one.limit == 2
    one.refused(windows[4], refusal(), one.resume_at, 0)
    assert one.limit == 2


def test_never_below_one() -> None:
    """However often it is refused, one call may be under way."""
    one = limiter(max_elapsed=1e9)
    for _ in range(20):
        assert one.refused(one.start(), refusal(), 1000, 0)
    assert one.limit == 1


def test_additive_increase() -> None:
    """After the first 429, `limit` successes add one; those of the window before the cut say nothing."""
    one = limiter()
    windows = start(one, 8)
    one.refused(windows[0], refusal(), 1000, 0)
    for window in windows[1:]:
        one.succeeded(window)
    grown = []
    for _ in range(4 + 5 + 6):
        one.succeeded(one.start())
        grown.append(one.limit)
    assert grown == [4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 7]


def test_retry_after_pauses_all() -> None:
    """The wait the service names is everybody's; a longer one, of a call of the same window too, prolongs it."""
    one = limiter()
    windows = start(one, 3)
    assert one.refused(windows[0], refusal(10), 1000, 0)
    assert [one.may_start(now) for now in (1000, 1009.9, 1010)] == [False, False, True]
    assert one.refused(windows[1], refusal(30), 1001, 0)
    assert one.refused(windows[2], refusal(2), 1002, 0)
    assert [one.may_start(now) for now in (1030.9, 1031)] == [False, True]


def test_back_off_where_no_wait_is_named() -> None:
    """Without a `Retry-After` the pause doubles from cut to cut, jittered down to its half; a success ends that."""
    one = limiter(max_delay=8)
    pauses = []
    for random in (0, 0, 0, 0, 0, 1):
        one.refused(one.start(), refusal(), 1000, random)
        pauses.append(one.resume_at - 1000)
        one.resume_at = float("-inf")
    assert pauses == [1, 2, 4, 8, 8, 4]
    one.succeeded(one.start())
    one.refused(one.start(), refusal(), 1000, 0)
    assert one.resume_at == 1001


def test_late_refusals_make_no_pause() -> None:
    """A 429 without a wait, in a window already cut, does not prolong the pause; its question goes again."""
    one = limiter()
    windows = start(one, 2)
    one.refused(windows[0], refusal(), 1000, 0)
    assert one.refused(windows[1], refusal(), 1000.5, 0)
    assert one.resume_at == 1001


def test_too_long_a_wait_is_given_up() -> None:
    """A `Retry-After` above `max_retry_after` gives the question up; the next ones come slowly all the same."""
    one = limiter(max_retry_after=60, max_delay=8)
    assert not one.refused(one.start(), refusal(61), 1000, 0)
    assert not one.may_start(1007.9)
    assert one.may_start(1008)


@pytest.mark.parametrize(("success", "again"), [(False, False), (True, True)])
def test_given_up_when_nothing_succeeds(success: bool, again: bool) -> None:
    """A question goes again for `max_elapsed` seconds of 429s; a success of any question begins them anew."""
    one = limiter(max_elapsed=100)
    assert one.refused(one.start(), refusal(), 1000, 0)
    if success:
        one.succeeded(one.start())
    assert one.refused(one.start(), refusal(), 1100.1, 0) is again


def test_idle_time_is_not_trouble() -> None:
    """Where no question came for long, the first 429 afterwards is the first one."""
    one = limiter(max_elapsed=100)
    one.succeeded(one.start())
    assert one.refused(one.start(), refusal(), 1e6, 0)


def test_attempts_are_not_for_refusals() -> None:
    """`Retry(attempts=1)` turns other retries off; what did not run for want of room goes again."""
    assert limiter(attempts=1).refused(0, refusal(), 1000, 0)
