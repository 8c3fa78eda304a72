"""`deadline`: the waits before a call count for its limit."""

import asyncio

import pytest

from ctxcache import APITimeoutError
from ctxcache.managed.deadline import Deadline


async def test_it_says_how_long_it_has_been(clock):
    """From the moment it was made."""
    deadline = Deadline(60, clock)
    clock.advance(5)
    assert await deadline.wait(asyncio.sleep(0, "done")) == "done"
    assert (deadline.waited, deadline.left) == (5, 55)


async def test_a_wait_that_is_too_long_ends():
    """With the error that a call itself would raise, and nothing was sent."""
    with pytest.raises(APITimeoutError, match=r"Timeouts\.total") as caught:
        await Deadline(0.01).wait(asyncio.Event().wait())
    assert (caught.value.limit, caught.value.seconds, caught.value.sent) == ("total", 0.01, False)
    assert caught.value.__context__ is None


async def test_earlier_waits_count(clock):
    """When the time is up, nothing more is waited for."""
    deadline = Deadline(60, clock)
    assert await deadline.wait(asyncio.sleep(0, "done")) == "done"
    clock.advance(61)
    assert deadline.left == 0
    with pytest.raises(APITimeoutError):
        await deadline.wait(asyncio.Event().wait())


async def test_another_s_timeout_is_another_s():
    """An error that comes out of the wait is raised as it is."""

    async def fail():
        raise APITimeoutError.of("head", 1)

    with pytest.raises(APITimeoutError, match=r"Timeouts\.head"):
        await Deadline(60).wait(fail())
