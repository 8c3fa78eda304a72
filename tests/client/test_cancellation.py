"""CancelScope: another task ends a wait, and no cancellation is lost or left behind."""

import asyncio

import pytest

from ctxcache.client.cancellation import CancelScope


class Waiter:
    """A task that waits until it is interrupted, and says how."""

    def __init__(self):
        self.wait_for, self.waiting = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self.run())

    async def run(self):
        """Wait in a scope."""
        self.scope = CancelScope()
        self.waiting.set()
        try:
            await self.wait_for.wait()
        except asyncio.CancelledError:
            if not self.scope.cancelled or self.scope.cancelled_elsewhere():
                raise
            return "interrupted", asyncio.current_task().cancelling()
        return "done", asyncio.current_task().cancelling()


@pytest.fixture
async def waiter():
    """A task that waits in a scope."""
    waiter = Waiter()
    await waiter.waiting.wait()
    return waiter


async def test_interrupted(waiter):
    """A cancelled scope wakes its task, whose cancellation is taken back."""
    waiter.scope.cancel()
    waiter.scope.cancel()
    assert await waiter.task == ("interrupted", 0)


@pytest.mark.parametrize("first", ["scope", "task"])
async def test_a_cancellation_from_elsewhere_wins(waiter, first):
    """A task that somebody else cancels in the same moment ends as cancelled."""
    for cancel in (
        (waiter.scope.cancel, waiter.task.cancel) if first == "scope" else (waiter.task.cancel, waiter.scope.cancel)
    ):
        cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter.task
    assert waiter.task.cancelled()


async def test_a_cancellation_of_the_task_alone(waiter):
    """A cancelled task whose scope was left alone ends as cancelled."""
    waiter.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter.task


async def test_cancelled_before_the_scope():
    """A cancellation that the task swallowed before the scope began does not count."""
    task = asyncio.current_task()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    scope = CancelScope()
    scope.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert not scope.cancelled_elsewhere()
    assert task.uncancel() == 0


async def test_an_error_that_is_no_cancellation():
    """A `CancelledError` out of the awaited code, while nobody cancelled the task, comes from nowhere else."""
    scope = CancelScope()
    abandoned = asyncio.get_running_loop().create_future()
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned
    assert not scope.cancelled
    assert not scope.cancelled_elsewhere()


async def test_inside_a_time_limit(waiter):
    """A scope inside the caller's own `asyncio.timeout` triggers no time-out."""

    async def within():
        async with asyncio.timeout(5):
            scope = CancelScope()
            asyncio.get_running_loop().call_soon(scope.cancel)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert not scope.cancelled_elsewhere()
        return "on it goes"

    assert await asyncio.create_task(within()) == "on it goes"
    waiter.wait_for.set()
    assert await waiter.task == ("done", 0)
