"""`limiter` in several processes over one service, in virtual time: together near what one process reaches."""

from collections.abc import Callable

import pytest

from .simulated import AtOnce, Bucket, Processes, Service, Window

SERVICES: dict[str, tuple[Callable[[], Service], int]] = {
    "8 at once": (lambda: AtOnce(8), 8000),
    "32 at once": (lambda: AtOnce(32), 16000),
    "10 a second": (lambda: Bucket(10, 10), 1600),
    "10 a second, Retry-After": (lambda: Bucket(10, 10, 1.0), 1600),
    "600 a minute": (lambda: Window(600, 60, sliding=False, names_wait=False), 4800),
    "600 a minute, Retry-After": (lambda: Window(600, 60, sliding=False, names_wait=True), 4800),
    "600 in the last minute, Retry-After": (lambda: Window(600, 60, sliding=True, names_wait=True), 4800),
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_processes_together(service: str, count: int) -> None:
    """While all have questions, 1, 2 or 8 processes reach 85% of the ideal rate, with 5 to 9% of 429s at most."""
    make, questions = SERVICES[service]
    for seed in range(3):
        outcome = Processes(make(), count, questions, 0.05, seed=seed)
        assert outcome.share >= 0.85
        assert outcome.refused <= (0.09 if count == 8 else 0.05)


@pytest.mark.parametrize("service", SERVICES)
def test_the_last_process_takes_what_the_first_leaves(service: str) -> None:
    """Of two processes, the one with less than its share speeds up after the other is done."""
    make, questions = SERVICES[service]
    for seed in range(3):
        assert Processes(make(), 2, questions, 0.05, seed=seed).total_share >= 0.7
