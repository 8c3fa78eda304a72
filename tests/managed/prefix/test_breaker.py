"""`breaker`: a store that fails is left alone, for longer each time, and tried by one operation."""

import asyncio

import pytest

from ctxcache.managed import MemoryStore
from ctxcache.managed.prefix.breaker import CircuitBreaker
from ctxcache.managed.prefix.timing import Timing


@pytest.fixture
def breaker(clock):
    """A breaker by the test's clock."""
    return CircuitBreaker(Timing(monotonic=clock))


async def fail(breaker, *, stalled=False):
    """Let one operation fail."""
    assert breaker.admit()
    task = asyncio.current_task()
    breaker.begin(task)
    breaker.failed(task, stalled=stalled)


async def succeed(breaker):
    """Let one operation succeed."""
    assert breaker.admit()
    task = asyncio.current_task()
    breaker.begin(task)
    breaker.succeeded(task)


async def test_closed_it_lets_everything_through(breaker):
    """And a success changes nothing."""
    for _ in range(3):
        await succeed(breaker)
    assert (breaker.usable, breaker.recoveries) == (True, 0)


async def test_pauses_double_up_to_the_longest(breaker, clock):
    """From a second to half a minute; a success begins anew."""
    for pause in (1, 2, 4, 8, 16, 30, 30):
        await fail(breaker)
        clock.advance(pause - 0.01)
        assert not breaker.admit()
        clock.advance(0.01)
        assert breaker.usable
    await succeed(breaker)
    assert breaker.recoveries == 1
    await fail(breaker)
    clock.advance(1)
    assert breaker.usable


async def test_a_stall_begins_with_the_longest_pause(breaker, clock):
    """Each trial of a store that stalls costs somebody a time limit."""
    await fail(breaker, stalled=True)
    clock.advance(29.9)
    assert not breaker.usable
    clock.advance(0.1)
    assert breaker.usable


async def test_after_a_pause_one_operation_tries(breaker, clock):
    """The others do without the store until it has succeeded; or until its outcome is overdue."""
    await fail(breaker)
    clock.advance(1)
    assert breaker.admit()
    assert not breaker.admit()
    clock.advance(2 * Timing().store_limit)
    assert breaker.admit()
    task = asyncio.current_task()
    breaker.begin(task)
    breaker.ended(task)  # cancelled: nothing was learnt
    assert not breaker.admit()


async def test_a_stall_ends_the_other_operations(breaker):
    """They would wait for the same store."""
    others = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(3)]
    for other in others:
        breaker.begin(other)
    await fail(breaker)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(other.done() for other in others)
    breaker.failed(asyncio.current_task(), stalled=True)
    await asyncio.wait(others)
    assert all(other.cancelled() for other in others)


def test_operations_of_a_loop_that_is_closed_are_no_concern(breaker):
    """A store may be used in several event loops."""

    async def begin():
        return asyncio.ensure_future(asyncio.Event().wait())

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    breaker.begin(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    asyncio.run(fail(breaker, stalled=True))
    assert not breaker.usable


def test_one_for_each_store_object():
    """Shared by all that use the object, whether it can be hashed or not; a store gone takes it along."""
    one, two = MemoryStore(), MemoryStore()
    assert CircuitBreaker.of(one, Timing()) is CircuitBreaker.of(one, Timing())
    assert CircuitBreaker.of(one, Timing()) is not CircuitBreaker.of(two, Timing())

    class Equal(MemoryStore):
        __hash__ = None

        def __eq__(self, other):
            return True

    three, four = Equal(), Equal()
    assert CircuitBreaker.of(three, Timing()) is CircuitBreaker.of(three, Timing())
    assert CircuitBreaker.of(three, Timing()) is not CircuitBreaker.of(four, Timing())


def test_a_store_without_weak_references_has_one_each_time():
    """It works all the same."""

    class Slotted:
        __slots__ = ()

    store = Slotted()
    assert CircuitBreaker.of(store, Timing()) is not CircuitBreaker.of(store, Timing())
