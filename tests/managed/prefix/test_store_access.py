"""`store_access`: a store that fails fails no call."""

import asyncio

import pytest

from ctxcache import system
from ctxcache.managed import MemoryStore, StoredContext
from ctxcache.managed.prefix.timing import Timing

from ..service import TEXT
from .broken import METHODS, Broken


@pytest.mark.parametrize("how", ["raises", "hangs", "cancels"])
@pytest.mark.parametrize("methods", [*([method] for method in METHODS), METHODS], ids="-".join)
async def test_a_store_that_fails_fails_no_call(prefix_for, service, clock, told, log_lines, until, how, methods):
    """Whatever it does: the calls are answered, one context is made where one is enough, and it is said once."""
    log_lines("WARNING")
    timing = Timing(store_limit=0.01 if how == "hangs" else 5)
    prefix = prefix_for(store=Broken(clock, how, *methods), _timing=timing)
    for _ in range(3):
        await prefix.ask("?")
        clock.advance(40)  # and the store is tried again
    await asyncio.gather(*(prefix.ask("?") for _ in range(10)))
    assert len(service.creates) == 1
    service.expire()
    await prefix.ask("?")
    [_ async for _ in prefix.stream("?")]
    assert len(service.creates) == 2
    assert "on_recreate" in [name for name, _ in told]
    await until(lambda: log_lines("WARNING"))  # a note of a use is written beside the calls
    (line,) = log_lines("WARNING")
    assert "password" not in line
    (event,) = [event for name, event in told if name == "on_warning"]
    assert (event.kind, event.message, event.context_id) == ("store", line, None)
    kinds = {"raises": OSError, "hangs": TimeoutError, "cancels": asyncio.CancelledError}
    assert type(event.error) is kinds[how]


async def test_a_store_that_finds_nonsense_has_failed(prefix_for, service, clock, told):
    """What somebody else's store returns is looked at."""
    assert (await prefix_for(store=Broken(clock, "nonsense", "get")).ask("?")).text == TEXT
    assert [name for name, _ in told] == ["on_warning", "on_create"]


@pytest.mark.parametrize(
    "found",
    [
        StoredContext("ctx-9", float("nan"), 60.0),
        StoredContext("ctx-9", float("inf"), 60.0),
        StoredContext("ctx-9", -5.0, 60.0),
        StoredContext("ctx-9", 3600.0, float("nan")),
        StoredContext("ctx-9", 3600.0, float("inf")),
        StoredContext("", 3600.0, 60.0),
        StoredContext(None, 3600.0, 60.0),
    ],
    ids=repr,
)
async def test_a_store_that_finds_no_context_has_failed(prefix_for, service, clock, told, found):
    """Nor may what it found be any numbers."""
    store = MemoryStore(clock=clock)

    async def get(key):
        return found

    store.get = get
    prefix = prefix_for(store=store)
    assert (await prefix.ask("?")).text == TEXT
    assert [name for name, _ in told] == ["on_warning", "on_create"]


async def test_a_store_that_is_closed_right_after_a_stream_has_not_failed(shared, shop, clock, told, until):
    """The end of a stream tells the store of the use beside the calls; that it came too late is nothing to warn of."""
    prefix = shared()
    await prefix.warm()
    clock.advance(600)
    [_ async for _ in prefix.stream("?")]
    await shop.aclose()
    await until(lambda: shop.touches)
    await asyncio.sleep(0)
    assert [name for name, _ in told] == ["on_create"]


async def test_a_store_that_fails_is_left_alone_for_a_while(prefix_for, service, clock):
    """Then it is tried again, and used if it works."""
    store = Broken(clock, "raises", "get")
    timing = Timing(monotonic=clock)
    prefix = prefix_for(store=store, _timing=timing)
    await prefix.warm()
    service.expire()
    await prefix.ask("?")
    assert store.tried["get"] == 1
    clock.advance(30)
    service.expire()
    await prefix.ask("?")
    assert store.tried["get"] == 2
    del store.get
    clock.advance(30)
    service.expire()
    await prefix.ask("?")
    await prefix_for(store=store).ask("?")
    assert len(service.creates) == 4


async def test_a_store_s_time_limit_begins_no_second_create(prefix_for, service, clock):
    """Who comes in the very moment in which the limit strikes waits like the others."""
    prefix = prefix_for(store=Broken(clock, "hangs", "get"), _timing=Timing(store_limit=0.01))
    warming = [asyncio.create_task(prefix.warm())]
    while not warming[0].done():
        warming.append(asyncio.create_task(prefix.warm()))
        await asyncio.sleep(0)
    assert {context.id for context in await asyncio.gather(*warming)} == {"ctx-1"}
    assert len(service.creates) == 1


async def test_who_is_cancelled_in_a_store_that_hangs_is_cancelled(prefix_for, clock, told, until):
    """That is no failure of the store."""
    store = Broken(clock, "hangs", "get")
    prefix = prefix_for(store=store)
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: store.tried["get"])
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert told == []


# --- one store, many prefixes


async def test_a_stall_costs_one_caller_one_time_limit(prefix_for, service, clock, log_lines):
    """The prefixes after it do without the store, and nobody warns again."""
    store = Broken(clock, "hangs", "get")
    timing = Timing(store_limit=0.01, monotonic=clock)
    for number in range(20):
        prefix = prefix_for(store=store, messages=[system(f"{number}")], _timing=timing)
        assert (await prefix.ask("?")).text == TEXT
    assert (store.tried["get"], len(service.creates), len(log_lines("WARNING"))) == (1, 20, 1)


async def test_a_stall_ends_the_wait_of_all(prefix_for, service, clock, log_lines):
    """Whoever began to wait a moment later does not wait for a time limit of its own."""
    store = Broken(clock, "hangs", "get")
    quick, slow = [Timing(store_limit=limit, monotonic=clock) for limit in (0.05, 600)]
    asking = [
        asyncio.create_task(prefix_for(store=store, messages=[system(f"{n}")], _timing=slow).ask("?")) for n in range(9)
    ]
    await prefix_for(store=store, _timing=quick).ask("?")
    async with asyncio.timeout(60):
        await asyncio.gather(*asking)
    assert (store.tried["get"], len(service.creates), len(log_lines("WARNING"))) == (10, 10, 1)


@pytest.mark.parametrize("methods", [["put"], ["touch"], ["put", "touch", "release"]], ids="-".join)
async def test_an_answer_does_not_wait_for_a_store(prefix_for, service, clock, methods):
    """Neither the first, whose context is put there, nor those that note a use."""
    store = Broken(clock, "hangs", *methods)
    prefix = prefix_for(store=store, _timing=Timing(store_limit=600))
    async with asyncio.timeout(60):
        for _ in range(5):
            assert (await prefix.ask("?")).text == TEXT
            clock.advance(1000)
    assert len(service.creates) == 1
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "StoreAccess" in repr(task):
            task.cancel()
