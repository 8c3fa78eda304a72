"""The store in memory."""

import asyncio
import threading
import tracemalloc

from ctxcache.managed.stores import MemoryStore


async def test_it_does_not_grow_for_ever() -> None:
    """What has passed its time is dropped, though nobody asks for it again."""
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    tracemalloc.start()
    sizes = []
    for number in range(10_000):
        now += 1
        await store.put(f"k{number}", "ctx-1", 100, 100)
        await store.lease(f"k{number}", "me", 100)
        await store.pause(f"k{number}", 100)
        if number % 1000 == 999:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(sizes) < 3 * sizes[0]


async def test_what_is_alive_is_never_dropped() -> None:
    """However much there is."""
    store = MemoryStore()
    for number in range(1000):
        await store.put(f"k{number}", f"ctx-{number}", 3600, 3600)
    for number in range(1000):
        found = await store.get(f"k{number}")
        assert found is not None
        assert found.id == f"ctx-{number}"


def test_two_event_loops_share_one() -> None:
    """As threads do that run a loop each: one of them gets the lease."""
    store, got = MemoryStore(), []

    def run(holder: str) -> None:
        got.append(asyncio.run(store.lease("k", holder, 60)))

    threads = [threading.Thread(target=run, args=(f"holder-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


async def test_its_repr_tells_no_key() -> None:
    """Only how much there is."""
    store = MemoryStore()
    await store.put("key", "ctx-1", 60, 60)
    assert repr(store) == "<MemoryStore of 1 contexts>"
