"""`store_access`: a store that fails fails no call."""

import asyncio
from collections import Counter

import pytest

from ctxcache.managed import MemoryStore, StoredContext
from ctxcache.managed.prefix.timing import Timing

from ..service import TEXT

METHODS = "get put touch forget lease release".split()


class Broken(MemoryStore):
    """A store of which some methods fail, one way or another."""

    def __init__(self, clock, how, *methods):
        super().__init__(clock=clock)
        self.tried = Counter()
        for method in methods:
            setattr(self, method, self._make(method, how))

    def _make(self, method, how):
        async def fail(*_):
            self.tried[method] += 1
            if how == "hangs":
                await asyncio.Event().wait()
            if how == "nonsense":
                return "nonsense"
            raise {"raises": OSError("redis://:a-password@host is down"), "cancels": asyncio.CancelledError()}[how]

        return fail


@pytest.mark.parametrize("how", ["raises", "hangs", "cancels"])
@pytest.mark.parametrize("methods", [*([method] for method in METHODS), METHODS], ids="-".join)
async def test_a_store_that_fails_fails_no_call(prefix_for, service, clock, told, log_lines, how, methods):
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
    prefix = prefix_for(store=store)
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
