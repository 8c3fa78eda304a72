"""`limiter` against services with limits, in virtual time: near what an all-knowing client reaches, with few 429s."""

import pytest

from .simulated import AtOnce, Bucket, Outcome, Service, Window, simulate

LATENCIES = [0.02, 0.05, 0.25]


def check(outcomes: list[Outcome], *, share: float = 0.85, refused: float = 0.05) -> None:
    """Check the promises that hold for every service."""
    assert min(outcome.share for outcome in outcomes) >= share
    assert max(outcome.refused for outcome in outcomes) <= refused
    assert [(outcome.failed, outcome.early) for outcome in outcomes] == [(0, 0)] * len(outcomes)


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("most", [1, 3, 8])
def test_calls_at_once(most: int, latency: float) -> None:
    """600 questions to a service that takes a few calls at once reach 85% of the ideal rate, with 5% of 429s."""
    check(simulate(lambda: AtOnce(most), 600, latency))


@pytest.mark.parametrize("latency", LATENCIES)
def test_many_calls_at_once(latency: float) -> None:
    """So do 2,000 to one that takes 32."""
    check(simulate(lambda: AtOnce(32), 2000, latency))


@pytest.mark.parametrize("latency", [0.05, 0.25])
def test_a_hundred_calls_at_once(latency: float) -> None:
    """So do 5,000 to one that takes 100, with at most 1,000 at once: the limit is found in few rounds."""
    check(simulate(lambda: AtOnce(100), 5000, latency, concurrency=1000), refused=0.02)


@pytest.mark.parametrize("latency", [0.05, 0.25])
def test_few_questions(latency: float) -> None:
    """So do 200 to one that takes 8."""
    check(simulate(lambda: AtOnce(8), 200, latency))


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_limit_that_falls_and_rises(latency: float) -> None:
    """So do 2,000 where the limit falls from 32 to 4 meanwhile, and rises again."""

    def most(now: float) -> int:
        return 4 if 20 * latency <= now < 70 * latency else 32

    check(simulate(lambda: AtOnce(most), 2000, latency))


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_calls_in_a_time(latency: float, retry_after: float | None) -> None:
    """600 questions to a service that takes 10 a second, and 10 at once after a rest, with or without `Retry-After`."""
    check(simulate(lambda: Bucket(10, 10, retry_after), 600, latency))


@pytest.mark.parametrize("latency", [0.02, 0.05])
def test_few_questions_in_a_time(latency: float) -> None:
    """200 questions to such a service, without `Retry-After`: finding the pace costs few calls."""
    check(simulate(lambda: Bucket(10, 10), 200, latency), share=0.95, refused=0.08)


@pytest.mark.parametrize("latency", LATENCIES)
def test_few_questions_in_a_sliding_window(latency: float) -> None:
    """400 questions to a service that takes 100 in 10 seconds, and names the wait for the next call only."""
    make = lambda: Window(100, 10, sliding=True, names_wait=True)  # noqa: E731
    check(simulate(make, 400, latency), refused=0.08)


@pytest.mark.parametrize("latency", [0.02, 0.05])
def test_no_burst(latency: float) -> None:
    """600 questions to a service that takes one call each 100 ms, however long the rest before."""
    check(simulate(lambda: Bucket(10, 1), 600, latency))


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("names_wait", [False, True])
@pytest.mark.parametrize("sliding", [False, True])
def test_requests_a_minute(latency: float, names_wait: bool, sliding: bool) -> None:
    """2,400 questions to a service that takes 600 a minute, of the clock or the last one, all at once if asked."""
    check(simulate(lambda: Window(600, 60, sliding=sliding, names_wait=names_wait), 2400, latency))


@pytest.mark.parametrize("names_wait", [False, True])
@pytest.mark.parametrize("sliding", [False, True])
def test_requests_a_second(names_wait: bool, sliding: bool) -> None:
    """600 questions where the window is one second, and short against a back-off."""
    make = lambda: Window(10, 1, sliding=sliding, names_wait=names_wait)  # noqa: E731
    check(simulate(make, 600, 0.05), share=0.75, refused=0.06)


@pytest.mark.parametrize("latency", [0.05, 0.25])
def test_each_429_pauses_all(latency: float) -> None:
    """Where each 429 costs everybody a second, the limit is probed so rarely that the rate stays near the ideal."""
    check(simulate(lambda: AtOnce(8, retry_after=1.0), 3000, latency), share=0.8, refused=0.01)


def test_the_most_calls_are_never_passed() -> None:
    """However many the service takes, no more run than the concurrency asked for."""
    service: Service = AtOnce(64)
    outcomes = simulate(lambda: service, 600, 0.05, concurrency=16)
    assert max(outcome.refused for outcome in outcomes) == 0
    assert max(outcome.share for outcome in outcomes) < 16 / 64 + 0.01
