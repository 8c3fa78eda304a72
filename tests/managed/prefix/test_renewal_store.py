"""`renewal` and a store that fails and comes back: a context gets into it all the same."""

import pytest

from ctxcache.managed import MemoryStore
from ctxcache.managed.prefix.timing import Timing

from .broken import METHODS, Broken


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_context_made_while_the_store_was_down_gets_into_it(prefix_for, service, clock, until, how):
    """With the first use after the pause: then others adopt it."""
    store = Broken(clock, how, *METHODS)
    timing = Timing(store_limit=0.01, monotonic=clock)
    prefix = prefix_for(store=store, _timing=timing)
    await prefix.ask("?")
    for method in METHODS:
        delattr(store, method)
    clock.advance(30)
    await prefix.ask("?")
    other = prefix_for(store=store, _timing=timing)
    await until(lambda: repr(store) == "<MemoryStore of 1 contexts>")
    await other.ask("?")
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 3})


async def test_a_context_that_the_store_lost_gets_into_it_again(prefix_for, service, clock, until):
    """A store that was down may come back empty."""
    store = MemoryStore(clock=clock)
    timing = Timing(monotonic=clock)
    prefix = prefix_for(store=store, _timing=timing)
    await prefix.warm()
    store.get = store.touch = Broken(clock, "raises", "get").get
    clock.advance(100)
    await prefix.ask("?")
    await prefix.warm()
    del store.get, store.touch
    clock.advance(3500)  # by now it is empty
    for _ in range(2):
        await prefix.ask("?")
        await prefix.warm()
        clock.advance(40)
    await until(lambda: repr(store) == "<MemoryStore of 1 contexts>")
    other = prefix_for(store=store, _timing=timing)
    await other.ask("?")
    assert len(service.creates) == 1


async def test_another_s_context_is_not_replaced_in_the_store(prefix_for, service, clock):
    """Where two made one each while the store was down, the first one back keeps its place."""
    store = Broken(clock, "raises", *METHODS)
    timing = Timing(monotonic=clock)
    one, two = [prefix_for(store=store, _timing=timing) for _ in range(2)]
    await one.ask("?")
    await two.ask("?")
    for method in METHODS:
        delattr(store, method)
    clock.advance(30)
    for prefix in (one, two, one, two):
        await prefix.ask("?")
        await prefix.warm()
    third = prefix_for(store=store, _timing=timing)
    await third.ask("?")
    assert (len(service.creates), third.context.id) == (2, "ctx-1")
