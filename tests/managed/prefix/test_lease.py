"""`lease`: short, renewed while it is needed, given back at the end."""

import asyncio

import pytest

from ctxcache.managed import MemoryStore
from ctxcache.managed.prefix.lease import Lease
from ctxcache.managed.prefix.store_access import StoreAccess
from ctxcache.managed.prefix.timing import Timing


def silence(name, make):
    """Tell nobody."""


class Gate:
    """Sleeps that end when a test says so."""

    def __init__(self):
        self.slept = []
        self.turns = asyncio.Semaphore(0)

    async def __call__(self, seconds):
        """Sleep."""
        self.slept.append(seconds)
        await self.turns.acquire()


@pytest.fixture
def gate():
    """The sleeps of the leases."""
    return Gate()


@pytest.fixture
def lease_for(shop, gate):
    """Make leases of one key."""
    timing = Timing(sleep=gate)
    return lambda: Lease(StoreAccess(shop, "k", silence, timing), timing)


async def test_one_has_it_at_a_time(lease_for):
    """Until it is given back."""
    one, two = lease_for(), lease_for()
    assert await one.take()
    assert not await two.take()
    await one.give_back()
    assert await two.take()


async def test_a_dead_holder_s_lease_is_short(lease_for, clock):
    """A few seconds."""
    assert await lease_for().take()
    clock.advance(Timing().lease)
    assert await lease_for().take()


async def test_it_is_renewed_as_long_as_it_is_kept(lease_for, gate, clock, until):
    """And no longer."""
    one, two = lease_for(), lease_for()
    await one.take()
    one.keep()
    for count in range(1, 5):
        await until(lambda count=count: len(gate.slept) == count)
        assert not await two.take()
        clock.advance(Timing().lease - 1)
        gate.turns.release()
    await until(lambda: len(gate.slept) == 5)
    await one.give_back()
    assert set(gate.slept) == {Timing().lease_renewal}
    assert await two.take()


async def test_what_is_given_back_while_it_is_taken_is_free(clock):
    """The taking goes on without its cancelled caller, and is waited for."""
    gate = asyncio.Event()

    class Slow(MemoryStore):
        async def lease(self, key, holder, seconds):
            await gate.wait()
            return await super().lease(key, holder, seconds)

    store = Slow(clock=clock)
    timing = Timing()
    lease = Lease(StoreAccess(store, "k", silence, timing), timing)
    taking = asyncio.ensure_future(lease.take())
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    giving = asyncio.ensure_future(lease.give_back())
    await asyncio.sleep(0)
    gate.set()
    await giving
    assert await store.lease("k", "another", 5)
