"""One creation for all who wait, in one task, one process, or many; and a store that may fail."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from ctxcache import (
    AsyncSession,
    AuthenticationError,
    ContextGoneError,
    CtxCacheError,
    Retry,
    SessionError,
    StreamInterruptedError,
    system,
    user,
)
from ctxcache.managed import MemoryStore, Prefix, SQLiteStore, StoredContext
from ctxcache.managed.prefix.single_flight import SingleFlight

from ..conftest import MANUAL, MODEL
from ..redis_server import BINARY, NO_BINARY, redis_server
from ..service import TEXT

# --- one creation for all


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


async def test_the_last_to_be_cancelled_cancels_the_create(prefix, service, session, held, until):
    """Nobody wants it any more; who comes a moment later begins anew."""
    service.creating.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(3)]
    await until(lambda: service.creates)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    service.creating.set()
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-2": 1})
    assert held(session) == {}


async def test_a_create_that_fails_as_its_last_waiter_leaves(prefix, service, until):
    """Nobody is left to look at the error, and the event loop does not complain."""
    service.creating.clear()
    service.create_errors.append(401)
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    service.creating.set()
    create = prefix._renewal._flight._task
    await until(create.done)
    asking.cancel()
    await asyncio.wait([asking])
    del asking, create
    gc.collect()


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


async def test_forgotten_while_it_creates(prefix_for, service, until):
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


async def test_a_create_that_somebody_else_cancels(prefix, service, until):
    """Its waiters, who were not cancelled, get an error of the family."""
    service.creating.clear()
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    prefix._renewal._flight._task.cancel()
    with pytest.raises(SessionError, match="cancelled from outside"):
        await asking


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
    """Two POSTs a call, three where a store is shared; each call is answered or says what it is; then all is well."""
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
    assert max(posts.values()) <= (2 if objects == 1 else 3)
    service._fates.clear()
    service.stillborn = 0
    for prefix in prefixes:
        assert (await prefix.ask("last?")).text == TEXT


# --- shared over a store


@pytest.fixture
def shop(clock):
    """A store in memory, by the test's clock."""
    return MemoryStore(clock=clock)


@pytest.fixture
def shared(prefix_for, shop):
    """Make Prefix objects over one store."""
    return lambda **settings: prefix_for(store=shop, **settings)


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
    two._renewal.gone(await two._renewal.current())
    await two.warm()  # which has forgotten ctx-1 in the store, and put ctx-2 there
    service.expire()
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


# --- the right to create


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


async def test_a_dead_holder_s_lease_is_waited_for_and_no_longer(shared, service, shop, clock, monkeypatch):
    """Whoever was killed while it created holds up the others for as long as its lease."""
    prefix = shared()
    assert await shop.lease(prefix._renewal._sharing._key, "somebody who died", 30)
    naps = prefix._renewal._sleep = Naps(clock)
    assert (await prefix.ask("?")).text == TEXT
    waited = naps.taken[: -naps.taken.count(10)] if 10 in naps.taken else naps.taken
    assert 30 <= sum(waited) < 31.1
    assert all(0.025 <= nap <= 1 for nap in waited)


async def test_a_lease_that_never_comes_is_not_waited_for_without_end(shared, service, shop, clock, log_lines):
    """A store that gives the right to nobody costs a wait, not the call."""
    log_lines("WARNING")

    async def never(key, holder, seconds):
        return False

    shop.lease = never
    prefix = shared()
    naps = prefix._renewal._sleep = Naps(clock)
    assert (await prefix.ask("?")).text == TEXT
    assert 120 <= sum(nap for nap in naps.taken if nap <= 1) < 122
    assert [line for line in log_lines("WARNING") if "right to create" in line]


async def test_a_session_that_is_closed_ends_the_wait_for_a_lease(shared, service, shop, session):
    """Not only when patience ends."""
    prefix = shared()
    await shop.lease(prefix._renewal._sharing._key, "another", 1000)
    naps = []

    async def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            await session.aclose()

    prefix._renewal._sleep = nap
    with pytest.raises(SessionError):
        await prefix.ask("?")
    assert (len(naps), service.creates) == (3, [])


async def test_a_creation_that_is_done_is_not_joined(prefix, service):
    """Not even where it was done before it could be noted, as with an eager task factory."""
    await prefix.warm()

    async def done():
        return prefix._renewal.live

    prefix._renewal._flight = flight = SingleFlight(done())
    await flight.join()
    service.expire()
    assert (await prefix.ask("?")).text == TEXT
    assert len(service.creates) == 2


async def test_the_lease_is_extended_while_the_create_takes_its_time(shared, service, shop, clock, until):
    """Nobody else begins meanwhile, however long it takes."""
    one, two = shared(), shared()
    service.creating.clear()
    turns, naps = asyncio.Semaphore(0), []

    async def nap(seconds):
        naps.append(seconds)
        await turns.acquire()

    one._renewal._sleep = nap
    asking = asyncio.create_task(one.ask("?"))
    await until(lambda: service.creates and naps)
    other = two._renewal._sharing
    for count in range(2, 6):
        clock.advance(25)
        turns.release()
        await until(lambda count=count: len(naps) == count)
        assert not await other.lease("another", 30)
    service.creating.set()
    await asking
    assert set(naps) == {10}
    assert await other.lease("another", 30)
    assert len(service.creates) == 1


async def test_the_right_is_given_back_where_the_create_fails(shared, service, until):
    """The next in line tries at once."""
    one, two = shared(), shared()
    service.create_errors.append(401)
    with pytest.raises(AuthenticationError):
        await one.ask("?")
    two._renewal._sleep = None  # which it has no need of
    assert (await two.ask("?")).text == TEXT


async def test_the_right_is_given_back_where_the_create_is_cancelled(shared, service, until):
    """Nobody has to wait for the lease of one who lost interest."""
    one, two = shared(), shared()
    service.creating.clear()
    asking = asyncio.create_task(one.ask("?"))
    await until(lambda: service.creates)
    create = one._renewal._flight._task
    asking.cancel()
    await asyncio.wait([asking])
    await until(create.done)
    service.creating.set()
    two._renewal._sleep = None
    assert (await two.ask("?")).text == TEXT


# --- a store that fails


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
    prefix = prefix_for(store=Broken(clock, how, *methods))
    prefix._renewal._sharing._limit = 0.01 if how == "hangs" else 5
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
    await until(lambda: not prefix._renewal._tasks)
    assert [name for name, _ in told] == ["on_create"]


async def test_a_store_that_fails_is_left_alone_for_a_while(prefix_for, service, clock):
    """Then it is tried again, and used if it works."""
    store = Broken(clock, "raises", "get")
    prefix = prefix_for(store=store)
    await prefix.warm()
    prefix._renewal.gone(prefix._renewal.live)
    await prefix.warm()
    assert store.tried["get"] == 1
    clock.advance(30)
    prefix._renewal.gone(prefix._renewal.live)
    await prefix.warm()
    assert store.tried["get"] == 2
    del store.get
    clock.advance(30)
    prefix._renewal.gone(prefix._renewal.live)
    await prefix.warm()
    await prefix_for(store=store).ask("?")
    assert len(service.creates) == 4


async def test_a_store_s_time_limit_begins_no_second_create(prefix_for, service, clock):
    """Who comes in the very moment in which the limit strikes waits like the others."""
    prefix = prefix_for(store=Broken(clock, "hangs", "get"))
    prefix._renewal._sharing._limit = 0.01
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


# --- many processes


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


async def test_retries_are_the_create_s_own(prefix, service):
    """A create that fails for a moment is tried again by the session, for all who wait, once."""
    service.create_errors.extend([500, 500])
    await asyncio.gather(*(prefix.ask("?", retry=Retry(attempts=1)) for _ in range(5)))
    assert len(service.creates) == 3
