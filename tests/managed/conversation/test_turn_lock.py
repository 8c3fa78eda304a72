"""`turn_lock`: first come, first served, and no task waits for itself."""

import asyncio
import gc

import pytest

from ctxcache import ContextBusyError
from ctxcache.managed.conversation.turn_lock import TurnLock

from .talk import a_while, made, says, streams


async def test_first_come_first_served():
    """Callers get the lock in the order in which they came."""
    lock, order = TurnLock(), []

    async def turn(number):
        await lock.take()
        order.append(number)
        await asyncio.sleep(0)
        lock.release()

    await asyncio.gather(*(turn(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_a_task_does_not_wait_for_itself():
    """It gets an error instead; another task waits."""
    lock = TurnLock()
    await lock.take()
    with pytest.raises(ContextBusyError, match="a stream of this conversation"):
        await lock.take()
    waiting = asyncio.ensure_future(lock.take())
    await a_while()
    assert not waiting.done()
    lock.release()
    await waiting


async def test_the_reading_task_is_the_holder():
    """A lock may be taken in one task and held by another."""
    lock = TurnLock()
    await asyncio.ensure_future(lock.take())
    lock.hold_here()
    with pytest.raises(ContextBusyError):
        await lock.take()


async def test_a_release_already_queued_is_waited_for():
    """The end of a forgotten stream is a callback of the event loop, queued before the next question."""
    lock = TurnLock()
    await lock.take()
    asyncio.get_running_loop().call_soon_threadsafe(lock.release)
    await lock.take()
    lock.release()


async def test_a_holder_that_is_gone_holds_nothing_up_but_the_lock():
    """The lock refers to its holder weakly: a task that has ended is collected, and others wait as before."""
    lock = TurnLock()
    await asyncio.ensure_future(lock.take())
    gc.collect()
    waiting = asyncio.ensure_future(lock.take())
    await a_while()
    assert not waiting.done()
    lock.release()
    await waiting


async def test_who_is_cancelled_in_line_leaves_it():
    """The next one is served."""
    lock = TurnLock()
    await lock.take()
    first, second = [asyncio.ensure_future(lock.take()) for _ in range(2)]
    await a_while()
    first.cancel()
    lock.release()
    await second
    assert first.cancelled()


async def test_a_forgotten_text_iterator_lets_go_at_once(hostile, new):
    """Without turns of the event loop to count: what `text()` returns is no async generator."""
    hostile.plays(made(), streams("Once", " upon"), says("Yes"))
    conversation = new()
    async for _ in conversation.stream("1?").text():
        break
    assert (await conversation.ask("2?")).text == "Yes"
