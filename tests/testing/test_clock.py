"""The time of a gateway in a test."""

import time

import pytest

from ctxcache import InvalidInputError
from ctxcache.testing import Clock


def test_it_moves_only_when_told() -> None:
    """A clock begins with the time of day, stands still, and moves forward by so many seconds."""
    clock = Clock()
    begun = clock()
    assert abs(begun - time.time()) < 60
    clock.advance(3601)
    assert clock() == clock.now == begun + 3601


def test_it_never_moves_back() -> None:
    """A number below 0 is refused."""
    with pytest.raises(InvalidInputError, match="seconds must be a number from 0 up, got -1"):
        Clock().advance(-1)
