"""`renewal`: one context for all who wait, in one task or many, over one store or none."""

import asyncio
import gc
import threading
import weakref
from collections import Counter
from random import Random

import pytest

from ctxcache import (
    AuthenticationError,
    ContextGoneError,
    CtxCacheError,
    Retry,
    SessionError,
    StreamInterruptedError,
)
from ctxcache.managed import MemoryStore

from ..service import TEXT


async def test_fifty_coroutines_make_one_context(prefix, service, told, until):
    """Those that need one at once wait for the same create."""
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(49)]
    warming = asyncio.create_task(prefix.warm())
    await until(lambda: service.creates)
    service.creating.set()
    assert {reply.text for reply in await asyncio.gather(*asking)} == {TEXT}
    assert (await warming).id == "ctx-1"
    assert (len(service.creates), service.posts, len(told)) == (1, {"ctx-1": 49}, 1)


async def test_a_failed_create_reaches_all_and_is_not_remembered(prefix, service, until):
    """Each gets an error of its own to add to; the next call tries anew."""
    service.creating.clear()
    service.create_errors.append(401)
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(50)]
    await until(lambda: service.creates)
    service.creating.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in errors} == {AuthenticationError}
    assert len({id(error) for error in errors}) == 50
    assert {error.status for error in errors} == {401}
    assert (len(service.creates), service.chats) == (1, [])
    assert (await prefix.ask("?")).text == TEXT
    assert len(service.creates) == 2


async def test_one_of_fifty_is_cancelled(prefix, service, until):
    """The others do not notice, the one that began the create among them or not."""
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(50)]
    await until(lambda: service.creates)
    for number in (0, 17):
        asking[number].cancel()
    service.creating.set()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert Counter(type(reply).__name__ for reply in replies) == {"ChatCompletion": 48, "CancelledError": 2}
    assert len(service.creates) == 1


async def test_a_create_that_was_sent_serves_whoever_comes_next(prefix, service, session, held, until):
    """Though its last waiter gave up: it is billed."""
    service.creating.clear()
    for _ in range(3):
        asking = [asyncio.create_task(prefix.ask("?")) for _ in range(3)]
        await until(lambda: service.creates)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    service.creating.set()
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 1})
    assert held(session) == {}


async def test_a_create_that_ends_after_its_last_waiter_is_used(prefix, service, told, until):
    """Its context is there for the next call, and was announced."""
    service.creating.clear()
    assert not prefix.renewing
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    asking.cancel()
    await asyncio.wait([asking])
    assert prefix.renewing
    service.creating.set()
    await until(lambda: prefix.context and not prefix.renewing)
    assert [name for name, _ in told] == ["on_create"]
    assert (await prefix.ask("?")).text == TEXT
    assert len(service.creates) == 1


async def test_the_session_is_closed_while_the_context_is_created(prefix, service, session, until):
    """All who wait are told, at once."""
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(5)]
    await until(lambda: service.creates)
    await session.aclose()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(error, CtxCacheError) for error in errors)
    with pytest.raises(SessionError):
        await prefix.ask("?")


async def test_forgotten_while_it_creates(prefix_for, service, told, until):
    """A Prefix that is dropped with its waiters leaves nothing behind."""
    service.creating.clear()
    prefix = prefix_for(store=MemoryStore())
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    asking.cancel()
    await asyncio.wait([asking])
    left = weakref.ref(prefix)
    del asking, prefix
    await until(lambda: gc.collect() >= 0 and left() is None)
    service.creating.set()
    await until(lambda: told)
    await asyncio.sleep(0)


async def test_in_another_event_loop_it_says_so(prefix, service, until):
    """Waiting for what another loop creates would wait for ever."""
    service.creating.clear()
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    caught = []

    def elsewhere():
        try:
            asyncio.run(prefix.ask("?"))
        except CtxCacheError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    service.creating.set()
    await asking
    assert [type(error) for error in caught] == [SessionError]
    assert "event loop" in str(caught[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objects", [1, 3])
async def test_whatever_happens_no_call_is_made_more_often_than_it_may(prefix_for, service, clock, seed, objects):
    """Two POSTs a call and little more; each call is answered or says what it is; then all is well."""
    random = Random(seed)
    store = MemoryStore(clock=clock) if objects > 1 else None
    prefixes = [prefix_for(store=store) for _ in range(objects)]
    service.fate(*random.choices(["fine", "gone", "late", "middle", "cut"], [20, 2, 2, 2, 2], k=300))

    async def call(number):
        for _ in range(random.randrange(30)):
            await asyncio.sleep(0)
        prefix = random.choice(prefixes)
        if random.random() < 0.05:
            service.expire()
        if random.random() < 0.05:
            service.stillborn += 1
        if random.random() < 0.05:
            clock.advance(3590)
        if random.random() < 0.5:
            return (await prefix.ask(f"{number}?")).text
        return "".join([text async for text in prefix.stream(f"{number}?").text()])

    calls = [asyncio.create_task(call(number)) for number in range(200)]
    for task in random.sample(calls, 20):
        asyncio.get_running_loop().call_soon(task.cancel)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    errors = {type(end) for end in ends if end != TEXT}
    assert errors <= {ContextGoneError, StreamInterruptedError, asyncio.CancelledError}
    posts = Counter(chat["messages"][0]["content"] for chat in service.chats)
    assert max(posts.values()) <= 5
    assert sum(posts.values()) <= (2.25 if objects == 1 else 3.25) * 200 + 10
    service.spare()
    for prefix in prefixes:
        assert (await prefix.ask("last?")).text == TEXT


async def test_retries_are_the_create_s_own(prefix, service):
    """A create that fails for a moment is tried again by the session, for all who wait, once."""
    service.create_errors.extend([500, 500])
    await asyncio.gather(*(prefix.ask("?", retry=Retry(attempts=1)) for _ in range(5)))
    assert len(service.creates) == 3
