"""`renewal` and the lease: one process creates, the others wait for as long as it takes."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ctxcache import (
    AuthenticationError,
    SessionError,
)
from ctxcache.managed import MemoryStore, SQLiteStore
from ctxcache.managed.prefix.timing import Timing

from ..redis_server import BINARY, NO_BINARY, redis_server
from ..service import TEXT


class Never:
    """Sleeps of a Prefix that has no need of them, but to renew its lease."""

    async def __call__(self, seconds):
        """Sleep until it is cancelled."""
        assert seconds == Timing().lease_renewal
        await asyncio.Event().wait()


class Naps:
    """Sleeps of a Prefix: each is noted, and moves the clock instead of taking its time."""

    def __init__(self, clock):
        self.clock = clock
        self.taken = []

    async def __call__(self, seconds):
        """Sleep."""
        self.taken.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


async def test_a_dead_holder_s_lease_is_waited_for_and_no_longer(shared, service, shop, clock):
    """Whoever was killed while it created holds up the others for as long as its lease."""
    shop.dead_holder_s_lease = 30
    naps = Naps(clock)
    prefix = shared(_timing=Timing(sleep=naps))
    assert (await prefix.ask("?")).text == TEXT
    waited = [nap for nap in naps.taken if nap != Timing().lease_renewal]
    assert 30 <= sum(waited) < 30.6
    assert all(0.025 <= nap <= 0.5 for nap in waited)


async def test_a_lease_that_never_comes_is_not_waited_for_without_end(shared, service, shop, clock, log_lines):
    """A store that gives the right to nobody costs a wait, not the call."""
    log_lines("WARNING")

    async def never(key, holder, seconds):
        return False

    shop.lease = never
    naps = Naps(clock)
    prefix = shared(_timing=Timing(sleep=naps))
    assert (await prefix.ask("?")).text == TEXT
    assert 120 <= sum(nap for nap in naps.taken if nap < 1) < 121
    assert [line for line in log_lines("WARNING") if "no lease from the store" in line]


async def test_a_session_that_is_closed_ends_the_wait_for_a_lease(shared, service, shop, session):
    """Not only when patience ends."""
    shop.dead_holder_s_lease = 1000
    naps = []

    async def nap(seconds):
        if seconds < Timing().lease_renewal:
            naps.append(seconds)
        if len(naps) == 3:
            await session.aclose()

    prefix = shared(_timing=Timing(sleep=nap))
    with pytest.raises(SessionError):
        await prefix.ask("?")
    assert (len(naps), service.creates) == (3, [])


async def test_the_lease_is_extended_while_the_create_takes_its_time(shared, service, shop, clock, until):
    """Nobody else begins meanwhile, however long it takes."""
    service.creating.clear()
    turns, naps = asyncio.Semaphore(0), []

    async def nap(seconds):
        naps.append(seconds)
        await turns.acquire()

    one = shared(_timing=Timing(sleep=nap))
    asking = asyncio.create_task(one.ask("?"))
    await until(lambda: service.creates and naps)
    for count in range(2, 6):
        clock.advance(4)
        turns.release()
        await until(lambda count=count: len(naps) == count)
        assert not await shop.lease(shop.key, "another", 5)
    service.creating.set()
    await asking
    assert set(naps) == {1}
    await until(lambda: shop.releases)
    assert await shop.lease(shop.key, "another", 30)
    assert len(service.creates) == 1


async def test_the_right_is_given_back_where_the_create_fails(shared, service, until):
    """The next in line tries at once."""
    one, two = shared(), shared(_timing=Timing(sleep=Never()))  # which it has no need of
    service.create_errors.append(401)
    with pytest.raises(AuthenticationError):
        await one.ask("?")
    assert (await two.ask("?")).text == TEXT


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_whoever_is_cancelled_in_the_store_leaves_no_lease(prefix_for, service, clock, tmp_path, kind):
    """At any step: the next one neither waits for a lease, nor creates beside a create that was sent."""
    for step in range(60):
        store = MemoryStore(clock=clock) if kind == "memory" else SQLiteStore(tmp_path / f"{step}.db")
        polls = []

        async def poll(seconds, polls=polls):
            polls.append(seconds)
            await asyncio.sleep(0 if seconds < Timing().lease_renewal else seconds)

        one, two = [prefix_for(store=store, _timing=Timing(sleep=poll)) for _ in range(2)]
        before = len(service.creates)
        asking = asyncio.create_task(one.ask("?"))
        for _ in range(step):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(5):
            if len(service.creates) == before:
                await one.warm()
            await two.warm()
        assert len(service.creates) <= before + 1
        assert sum(polls) < 2 * Timing().lease_renewal
        await store.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_four_processes_make_one_context_between_them(service, key, tmp_path, kind):
    """Over one SQLite file, and over one Redis; then, found gone by all of them, one more."""
    if kind == "sqlite":
        await four_processes(service, key, str(tmp_path / "contexts.db"))
    elif BINARY is None:
        pytest.skip(NO_BINARY)
    else:
        with redis_server() as url:
            await four_processes(service, key, url)


async def four_processes(service, key, place):
    """Start them, let each ask twenty questions, end the context, let each ask twenty more."""
    script = str(Path(__file__).with_name("asker.py"))
    pipe = subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, script, service.url, key, place, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(4)
    ]
    try:
        for creates in (1, 2):
            for process in processes:
                assert (await process.stdout.readline()).decode() == "ready\n"
            service.expire()
            for process in processes:
                process.stdin.write(b"go\n")
            for process in processes:
                assert (await process.stdout.readline()).decode() == f"{[TEXT]}\n"
            assert len(service.creates) == creates
        for process in processes:
            _, complaints = await process.communicate()
            assert (process.returncode, complaints) == (0, b"")
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    assert (service.posts["ctx-2"], len(service.chats) - service.posts["ctx-2"] >= 80) == (80, True)
