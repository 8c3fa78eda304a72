"""Services that a map asks, and a clock for its pauses."""

from collections.abc import Callable
from typing import Any

import pytest

from ctxcache.managed.mapping import Map

from .asking import Asked, Time


@pytest.fixture
def asked() -> Asked:
    """A service that answers when it is told to."""
    return Asked()


@pytest.fixture
def quick() -> Asked:
    """A service that answers at once."""
    return Asked(quick=True)


@pytest.fixture
def time() -> Time:
    """A clock."""
    return Time()


@pytest.fixture
def timed(time: Time) -> Callable[..., Map[Any]]:
    """Make a map whose pauses take no time."""

    def make(ask: Any, questions: Any, **options: Any) -> Map[Any]:
        return Map(ask, questions, clock=time.clock, sleep=time.sleep, random=lambda: 0.0, **options)

    return make
