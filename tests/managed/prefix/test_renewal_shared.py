"""`renewal` over a store: prefixes share one context, and a dead one is replaced once."""

import asyncio
from contextlib import aclosing

import pytest

from ctxcache import (
    AsyncSession,
    ContextGoneError,
    system,
    user,
)
from ctxcache.managed import MemoryStore, Prefix, SQLiteStore, StoredContext

from ..conftest import MANUAL, MODEL
from ..service import TEXT


async def test_two_over_one_store_make_one_context(shared, service, told, log_lines, until):
    """Even where both need it at once; the second adopts it, and knows what the store knows."""
    log_lines("INFO")
    one, two = shared(), shared()
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for prefix in (one, two) for _ in range(5)]
    await until(lambda: service.creates)
    service.creating.set()
    await asyncio.gather(*asking)
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 10})
    assert [name for name, _ in told] == ["on_create"]
    assert (two.context.id, two.context.ttl, two.context.model, two.context.mode) == (
        "ctx-1",
        3600,
        MODEL,
        "common_prefix",
    )
    assert [line for line in log_lines("INFO") if "adopted" in line] == [
        "context ctx-1: adopted from the store, 3600 s left"
    ]
    assert (one.usage.prompt_tokens, two.usage.prompt_tokens) == (650, 550)  # the create is in the books of one


async def test_what_is_the_same_prefix(shared, service, session):
    """The same model and messages, in whatever form they are given; the ttl does not tell them apart."""
    named = {"role": "system", "content": "a", "name": "x", "other": 1}
    turned = {"other": 1, "name": "x", "content": "a", "role": "system"}
    for messages in ([named], [turned], (named,)):
        await shared(messages=messages, ttl=7200).warm()
    assert len(service.creates) == 1
    for settings in ({"model": "m"}, {"messages": [user(MANUAL)]}, {"messages": [system("a")]}):
        await shared(**settings).warm()
    assert len(service.creates) == 4


async def test_two_accounts_never_see_each_other_s(shared, service, shop, clock):
    """Nor do two base URLs."""
    await shared().warm()
    for key, url in (
        ("sk-another", service.url),
        ("sk-test/0123456789+abcdef", service.url.replace("127.0.0.1", "localhost")),
    ):
        async with AsyncSession(key, url) as session:
            await Prefix(session, model=MODEL, messages=[system(MANUAL)], store=shop, clock=clock).warm()
    assert len(service.creates) == 3


async def test_nothing_secret_is_stored(prefix_for, service, key, tmp_path):
    """Neither key, URL nor message, nor a plain hash of them."""
    path = tmp_path / "contexts.db"
    async with aclosing(SQLiteStore(path)) as store:
        await prefix_for(store=store).ask("a question")
        await store.aclose()
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"ctx-1" in stored
    for secret in (key, service.url, MANUAL, MODEL, "a question"):
        assert secret.encode() not in stored


async def test_uses_slide_the_end_in_the_store(shared, service, clock, shop):
    """So that who comes later adopts it, long after its first end; streams slide it as well."""
    one = shared()
    for _ in range(3):
        await one.ask("?")
        clock.advance(2000)
        [_ async for _ in one.stream("?")]
        await asyncio.sleep(0)  # the store is told beside the calls
        clock.advance(2000)
    two = shared()
    await two.warm()
    assert len(service.creates) == 1
    assert two.expires_at == clock() + 1600


async def test_the_store_is_told_of_a_hundredth_of_the_uses(shared, clock, shop, monkeypatch):
    """At most once in a hundredth of the ttl, whatever the number of calls."""
    touched = []

    async def touch(key, context_id, remaining):
        touched.append(remaining)

    monkeypatch.setattr(shop, "touch", touch)
    prefix = shared()
    for _ in range(100):
        await prefix.ask("?")
        clock.advance(1)
    assert touched == [3600, 3600]


async def test_others_may_have_kept_it_alive(shared, service, clock):
    """Where the time known here is up, the store may know better."""
    one, two = shared(), shared()
    await one.warm()
    await two.warm()
    clock.advance(3000)
    await two.ask("?")
    clock.advance(1000)
    await one.ask("?")
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 2})


async def test_what_is_as_good_as_gone_is_not_adopted(shared, service, clock):
    """A context in its last moments is replaced, in the store as well."""
    await shared().warm()
    clock.advance(3580)
    await shared().ask("?")
    await shared().ask("?")
    assert service.posts == {"ctx-2": 2}


async def test_a_dead_one_is_adopted(shared, service, told):
    """Found gone, forgotten in the store, made anew: two POSTs."""
    await shared().warm()
    service.expire()
    two = shared()
    assert (await two.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})
    assert (told[-1][1].old_id, told[-1][1].reason) == ("ctx-1", "gone")
    await shared().ask("?")
    assert service.posts == {"ctx-1": 1, "ctx-2": 2}


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_a_dead_one_is_adopted_in_place_of_a_dead_one(shared, service, way):
    """Then, and only then, the call is repeated twice: the last time on one that was created for it."""
    one, two = shared(), shared()
    await one.warm()
    service.expire()
    await two.ask("?")  # which has forgotten ctx-1 in the store, and put ctx-2 there
    service.expire()
    service.posts.clear()
    if way == "ask":
        assert (await one.ask("?")).text == TEXT
    else:
        assert "".join([text async for text in one.stream("?").text()]) == TEXT
    assert (len(service.creates), service.posts) == (3, {"ctx-1": 1, "ctx-2": 1, "ctx-3": 1})


async def test_gone_is_believed_of_one_s_own_only(shared, service):
    """Who finds the old context gone does not forget, in the store, the one that has replaced it."""
    one, two = shared(), shared()
    await one.warm()
    await two.warm()
    service.expire()
    await two.ask("?")
    await one.ask("?")
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 2, "ctx-2": 2})


class Stuck(MemoryStore):
    """A store that never forgets: each time it offers another dead context."""

    offered = 0

    async def get(self, key):
        """Make one up."""
        self.offered += 1
        return StoredContext(f"dead-{self.offered}", 3600, 3600)


async def test_a_store_full_of_dead_contexts_is_no_loop(prefix_for, service):
    """Three POSTs and one create a call, then it has one of its own; or, where that is dead as well, the error."""
    prefix = prefix_for(store=Stuck())
    service.stillborn = 1
    with pytest.raises(ContextGoneError):
        await prefix.ask("?")
    assert (len(service.creates), len(service.chats)) == (1, 3)
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), len(service.chats)) == (2, 6)
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), len(service.chats)) == (2, 7)


async def test_fifty_with_dead_contexts_from_the_store_make_one(prefix_for, service, until):
    """Their last resort is one create as well."""
    prefix = prefix_for(store=Stuck())
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(50)]
    await until(lambda: service.creates)
    service.creating.set()
    await asyncio.gather(*asking)
    assert len(service.creates) == 1
    assert service.posts["ctx-1"] == 50
