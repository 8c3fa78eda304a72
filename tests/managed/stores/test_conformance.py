"""What every store does, run on each of the three."""

import asyncio
from typing import Any

import pytest

from ctxcache import SessionError
from ctxcache.managed.stores import Store

KEY = "Zk3-_.9a"

beyond_this_object = pytest.mark.parametrize("shelf", ["sqlite", "redis"], indirect=True)


async def kept(store: Store, key: str = KEY) -> str | None:
    """The id of the context that is kept."""
    found = await store.get(key)
    return None if found is None else found.id


async def test_an_empty_store_has_nothing(store: Store) -> None:
    """None, not an error; nothing to drop is no error either."""
    assert await store.get(KEY) is None
    await store.touch(KEY, "ctx-1", 60)
    await store.forget(KEY, "ctx-1")
    await store.release(KEY, "me")
    assert await store.get(KEY) is None


async def test_what_is_put_is_given_back(store: Store) -> None:
    """Id and idle time as they were, and the time that remains as of now."""
    await store.put(KEY, "ctx-ä漢", 3600, 1800.5)
    found = await store.get(KEY)
    assert found is not None
    assert (found.id, found.ttl) == ("ctx-ä漢", 3600)
    assert 1700 < found.remaining <= 1800.5


async def test_the_time_that_remains_shrinks(shelf: Any) -> None:
    """It is counted from the answer on."""
    store = shelf.store()
    await store.put(KEY, "ctx-1", 3600, 3600)
    shelf.advance(1000)
    found = await store.get(KEY)
    assert 2500 < found.remaining <= 2600


async def test_put_replaces(store: Store) -> None:
    """Also by one that has less time."""
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.put(KEY, "ctx-2", 7200, 60)
    found = await store.get(KEY)
    assert found is not None
    assert (found.id, found.ttl) == ("ctx-2", 7200)
    assert found.remaining <= 60


async def test_a_context_past_its_time_is_not_given(shelf: Any) -> None:
    """Nor does a late note of its use bring it back."""
    store = shelf.store()
    await store.put(KEY, "ctx-1", 3600, 60)
    shelf.advance(61)
    await store.touch(KEY, "ctx-1", 3600)
    assert await store.get(KEY) is None


@pytest.mark.parametrize("remaining", [0, 0.0001, -5])
async def test_a_context_without_time_is_not_kept(shelf: Any, remaining: float) -> None:
    """It replaces the one before all the same."""
    store = shelf.store()
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.put(KEY, "ctx-2", 3600, remaining)
    shelf.advance(0.001)
    assert await store.get(KEY) is None


async def test_a_use_slides_the_time(shelf: Any) -> None:
    """A context that is used in time lives on."""
    store = shelf.store()
    await store.put(KEY, "ctx-1", 60, 60)
    for _ in range(5):
        shelf.advance(40)
        await store.touch(KEY, "ctx-1", 60)
    found = await store.get(KEY)
    assert (found.id, found.ttl) == ("ctx-1", 60)
    assert found.remaining <= 60


@pytest.mark.parametrize("remaining", [30, 0, -1])
async def test_a_late_note_never_slides_it_back(store: Store, remaining: float) -> None:
    """The latest use counts, in whatever order the notes arrive."""
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.touch(KEY, "ctx-1", remaining)
    found = await store.get(KEY)
    assert found is not None
    assert found.remaining > 3500


async def test_a_note_of_a_replaced_context_is_nothing(store: Store) -> None:
    """It gives its successor no time, and does not take its place."""
    await store.put(KEY, "ctx-2", 3600, 60)
    await store.touch(KEY, "ctx-1", 3600)
    found = await store.get(KEY)
    assert found is not None
    assert found.id == "ctx-2"
    assert found.remaining <= 60


async def test_forgetting_drops_that_context_only(store: Store) -> None:
    """What another process put in its place stays."""
    await store.put(KEY, "ctx-2", 3600, 3600)
    await store.forget(KEY, "ctx-1")
    assert await kept(store) == "ctx-2"
    await store.forget(KEY, "ctx-2")
    assert await kept(store) is None


async def test_two_keys_know_nothing_of_each_other(store: Store) -> None:
    """Neither their contexts nor their leases; keys are compared as they are."""
    await store.put("key", "ctx-1", 3600, 3600)
    await store.put("KEY", "ctx-2", 3600, 3600)
    assert await store.lease("key", "me", 60)
    assert await store.lease("KEY", "you", 60)
    await store.forget("key", "ctx-1")
    await store.release("KEY", "you")
    assert await kept(store, "key") is None
    assert await kept(store, "KEY") == "ctx-2"
    assert not await store.lease("key", "you", 60)


async def test_a_lease_and_a_context_of_one_key_are_apart(store: Store) -> None:
    """The right to create says nothing of what is kept."""
    assert await store.lease(KEY, "me", 60)
    assert await store.get(KEY) is None
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.release(KEY, "me")
    assert await kept(store) == "ctx-1"


async def test_one_has_the_lease_at_a_time(shelf: Any) -> None:
    """Until it is given back, or its time is over."""
    store = shelf.store()
    assert await store.lease(KEY, "me", 30)
    assert not await store.lease(KEY, "you", 30)
    await store.release(KEY, "me")
    assert await store.lease(KEY, "you", 30)
    shelf.advance(31)
    assert await store.lease(KEY, "me", 30)


async def test_of_fifty_that_ask_at_once_one_gets_the_lease(store: Store) -> None:
    """Exactly one."""
    got = await asyncio.gather(*(store.lease(KEY, f"holder-{number}", 60) for number in range(50)))
    assert sorted(got) == [False] * 49 + [True]


async def test_a_holder_extends_its_lease(shelf: Any) -> None:
    """As often as it likes."""
    store = shelf.store()
    for _ in range(4):
        assert await store.lease(KEY, "me", 30)
        shelf.advance(20)
    assert not await store.lease(KEY, "you", 30)


async def test_a_lease_is_never_long(shelf: Any) -> None:
    """However much is asked for: who waits for a dead holder waits half a minute at most."""
    store = shelf.store()
    assert await store.lease(KEY, "dead", 1e9)
    assert not await store.lease(KEY, "you", 30)
    shelf.advance(31)
    assert await store.lease(KEY, "you", 30)


async def test_asking_for_another_s_lease_does_not_extend_it(shelf: Any) -> None:
    """However often those who wait ask, a dead holder's lease ends."""
    store = shelf.store()
    assert await store.lease(KEY, "dead", 30)
    for _ in range(2):
        shelf.advance(14)
        assert not await store.lease(KEY, "you", 30)
    shelf.advance(3)
    assert await store.lease(KEY, "you", 30)


async def test_only_the_holder_gives_a_lease_back(shelf: Any) -> None:
    """One that comes too late does not take its successor's."""
    store = shelf.store()
    assert await store.lease(KEY, "late", 30)
    shelf.advance(31)
    assert await store.lease(KEY, "me", 30)
    await store.release(KEY, "late")
    assert not await store.lease(KEY, "late", 30)
    assert not await store.lease(KEY, "you", 30)


async def test_a_pause_ends_by_itself(shelf: Any) -> None:
    """The seconds left shrink to 0; a key that nobody paused has none."""
    store = shelf.store()
    assert await store.paused(KEY) == 0
    await store.pause(KEY, 60)
    shelf.advance(20)
    assert 30 < await store.paused(KEY) <= 40
    shelf.advance(41)
    assert await store.paused(KEY) == 0
    await store.pause(KEY, 5)
    assert 0 < await store.paused(KEY) <= 5


@pytest.mark.parametrize("seconds", [30, 0, -5])
async def test_a_pause_is_never_shortened(store: Store, seconds: float) -> None:
    """Of two 429s the longer wait counts, in whatever order the notes arrive."""
    await store.pause(KEY, 60)
    await store.pause(KEY, seconds)
    assert 50 < await store.paused(KEY) <= 60
    await store.pause(KEY, 90)
    assert 80 < await store.paused(KEY) <= 90


@pytest.mark.parametrize("seconds", [0, -5])
async def test_no_pause_of_no_time(store: Store, seconds: float) -> None:
    """A wait of no seconds pauses nobody."""
    await store.pause(KEY, seconds)
    assert await store.paused(KEY) == 0


async def test_a_pause_is_never_longer_than_an_hour(store: Store) -> None:
    """However much is asked for."""
    await store.pause(KEY, 1e9)
    assert 3500 < await store.paused(KEY) <= 3600


async def test_a_pause_of_a_key_is_nothing_else(shelf: Any) -> None:
    """Neither a context nor a lease, nor a pause of another key."""
    store = shelf.store()
    await store.pause(KEY, 60)
    assert await store.get(KEY) is None
    assert await store.lease(KEY, "me", 30)
    await store.release(KEY, "me")
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.forget(KEY, "ctx-1")
    assert await store.paused("other") == 0
    assert 50 < await store.paused(KEY) <= 60


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_operation_leaves_it_usable(store: Store, turns: int) -> None:
    """Whenever it is cancelled; and no later answer is that of the cancelled one."""
    await store.put(KEY, "ctx-1", 3600, 3600)
    for _ in range(3):
        tasks = [
            asyncio.ensure_future(operation)
            for operation in (store.get("other"), store.put("x", "ctx-x", 60, 60), store.lease("x", "me", 60))
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await kept(store) == "ctx-1"
    assert await store.lease(KEY, "me", 60)
    assert not await store.lease(KEY, "you", 60)
    await store.release(KEY, "me")
    assert await store.lease(KEY, "you", 60)


async def test_a_store_is_closed_twice(store: Store) -> None:
    """The second time does nothing; a store that was never used closes as well."""
    await store.aclose()
    await store.aclose()


async def test_a_closed_store_says_so(store: Store) -> None:
    """Every operation, and its repr."""
    await store.put(KEY, "ctx-1", 60, 60)
    await store.aclose()
    for operation in (
        store.get(KEY),
        store.put(KEY, "ctx-1", 60, 60),
        store.touch(KEY, "ctx-1", 60),
        store.forget(KEY, "ctx-1"),
        store.lease(KEY, "me", 60),
        store.release(KEY, "me"),
        store.pause(KEY, 60),
        store.paused(KEY),
    ):
        with pytest.raises(SessionError, match="the store is closed"):
            await operation
    assert "closed" in repr(store)


async def test_closing_lets_what_is_under_way_end(store: Store) -> None:
    """An operation that has begun has its answer, whoever closes the store meanwhile."""
    await store.put(KEY, "ctx-1", 60, 60)
    tasks = [asyncio.ensure_future(store.get(KEY)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    found = await asyncio.gather(*tasks)
    assert {context.id for context in found if context is not None} == {"ctx-1"}


@beyond_this_object
async def test_two_stores_over_one_place_see_each_other(shelf: Any) -> None:
    """As two processes do."""
    one, two = shelf.store(), shelf.store()
    await one.put(KEY, "ctx-1", 3600, 60)
    assert await kept(two) == "ctx-1"
    await two.touch(KEY, "ctx-1", 3600)
    assert (await one.get(KEY)).remaining > 3500
    assert await one.lease(KEY, "me", 60)
    assert not await two.lease(KEY, "you", 60)
    await two.forget(KEY, "ctx-1")
    assert await kept(one) is None
    await one.pause(KEY, 60)
    assert 50 < await two.paused(KEY) <= 60


@beyond_this_object
async def test_what_is_kept_outlives_the_store_object(shelf: Any) -> None:
    """A process that starts again finds it."""
    store = shelf.store()
    await store.put(KEY, "ctx-1", 3600, 3600)
    await store.aclose()
    assert await kept(shelf.store()) == "ctx-1"


async def test_async_with(store: Store) -> None:
    """`async with` gives the store itself and closes the store at the end, also after an error."""
    with pytest.raises(ZeroDivisionError):
        async with store as same:
            assert same is store
            await same.put(KEY, "ctx-1", 3600, 60)
            raise ZeroDivisionError
    with pytest.raises(SessionError):
        await store.get(KEY)
    await store.aclose()
