"""`shared_pause`: a `Retry-After` holds for all prefixes of an account and a model that share a store."""

import asyncio
import re

import pytest

from ctxcache import APITimeoutError, AsyncSession, Limits, RateLimitError, Retry, system
from ctxcache.managed import MemoryStore, Prefix
from ctxcache.managed.prefix.timing import Timing

from ..conftest import MODEL
from ..service import TEXT
from .broken import Broken

REFUSED = Retry(attempts=1)


RENEWAL = 7.0


class Nap:
    """Sleeps that take no time but the clock's; a lease is not renewed meanwhile."""

    def __init__(self, clock):
        self.clock = clock
        self.slept = []

    async def __call__(self, seconds):
        """Sleep."""
        if seconds == RENEWAL:
            await asyncio.Event().wait()
        self.slept.append(pytest.approx(seconds))
        self.clock.advance(seconds)


@pytest.fixture
def nap(clock):
    """Sleeps by the test's clock."""
    return Nap(clock)


@pytest.fixture
def make(prefix_for, clock, nap, shop):
    """Make a Prefix over a store, by the test's clock."""

    def make(name="one", store=shop, **settings):
        timing = Timing(monotonic=clock, sleep=nap, lease_renewal=RENEWAL)
        return prefix_for(messages=[system(name)], store=store, _timing=timing, **settings)

    return make


async def refuse(service, prefix, seconds="30", retry=REFUSED):
    """Let a call of a prefix be refused."""
    service.retry_after = seconds
    service.fate("busy")
    with pytest.raises(RateLimitError):
        await prefix.ask("?", retry=retry)


async def test_others_wait(make, service, nap, until):
    """Another prefix of the account and model waits as long as the service asked."""
    one, two = make("one"), make("two")
    await two.warm()
    await refuse(service, one)
    await until(lambda: two.paused)
    assert (one.paused, two.paused) == (30, 30)
    assert (await two.ask("?")).text == TEXT
    assert nap.slept == [30]
    assert (one.paused, two.paused) == (0, 0)


async def test_streams_wait(make, service, nap, until):
    """A stream as well, and a stream that is refused tells the others."""
    one, two = make("one"), make("two")
    service.retry_after = "30"
    service.fate("busy")
    with pytest.raises(RateLimitError):
        await one.stream("?", retry=REFUSED).open()
    await until(lambda: two.paused)
    assert [chunk async for chunk in two.stream("?")]
    assert nap.slept == [30]


@pytest.fixture
async def narrow(service, key, clock, nap, shop):
    """A prefix on a store whose session has one connection."""
    timing, limits = Timing(monotonic=clock, sleep=nap, lease_renewal=RENEWAL), Limits(connections=1)
    async with AsyncSession(key, service.url, retry=Retry(first_delay=0), limits=limits) as session:
        messages = [system("narrow")]
        yield Prefix(session, model=MODEL, messages=messages, ttl=3600, store=shop, clock=clock, _timing=timing)


async def told_whole(stream):
    """Read a stream to its end."""
    return "".join([text async for text in stream.text()])


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_calls_in_line_wait(narrow, service, nap, until, way):
    """A pause that begins while calls wait for a connection holds for those calls, too."""
    await narrow.warm()
    service.chatting.clear()
    refused = asyncio.create_task(refuse(service, narrow))
    await until(lambda: service.waiting)
    calls = [narrow.ask("?") if way == "ask" else told_whole(narrow.stream("?")) for _ in range(4)]
    asking = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    service.chatting.set()
    await refused
    answers = await asyncio.gather(*asking)
    assert [getattr(answer, "text", answer) for answer in answers] == [TEXT] * 4
    assert nap.slept[0] == 30
    assert len(service.chats) == 5


async def test_a_call_that_is_refused_itself_keeps_to_its_retries(make, service, clock, nap):
    """However long others are to wait meanwhile, no attempt is made beyond the policy's."""
    store = MemoryStore(clock=clock)

    async def paused(key):
        return 3000.0

    store.paused = paused
    one = make(store=store)
    await one.warm()
    service.retry_after = "0.001"
    service.fate("busy", "busy", "busy")
    with pytest.raises(RateLimitError) as caught:
        await one.ask("?", retry=Retry(attempts=3, first_delay=0))
    assert (caught.value.attempts, len(service.chats), nap.slept) == (3, 3, [])


async def test_maps_wait(make, service, until):
    """No question of a map is asked before the pause is over."""
    one, two = make("one"), make("two")
    await two.warm()
    await refuse(service, one, "5000", Retry(attempts=1, max_retry_after=9000))
    await until(lambda: two.paused)
    mapping = asyncio.create_task(anext(two.map(["a", "b"], retry=Retry(max_retry_after=9000))))
    for _ in range(100):
        await asyncio.sleep(0)
    asked = len(service.chats)
    mapping.cancel()
    await asyncio.gather(mapping, return_exceptions=True)
    assert asked == 1


async def test_the_refusals_of_a_map_pause_others(make, service, clock, until):
    """A map tells the store of its 429s, too."""
    one, two = make("one"), make("two")
    service.retry_after = "50"
    service.fate("busy")
    async with one.map(["a"]) as answers:
        asking = asyncio.create_task(anext(answers))
        await until(lambda: one.paused)
        clock.advance(1)
        await until(lambda: two.paused)
        assert two.paused > 40
    with pytest.raises(StopAsyncIteration):
        await asking


async def test_a_call_without_retries_does_not_wait(make, service, nap, until):
    """Whoever wants to hear of a 429 at once hears of it at once."""
    one, two = make("one"), make("two")
    await refuse(service, one)
    await until(lambda: two.paused)
    service.fate("busy")
    with pytest.raises(RateLimitError):
        await two.ask("?", retry=0)
    assert nap.slept == []


@pytest.mark.parametrize(("other", "seconds"), [({"model": "another"}, 0), ({"ttl": 7200}, 30)])
async def test_a_pause_is_for_an_account_and_a_model(make, service, other, seconds):
    """A limit of one model says nothing of another one; other settings of the context share the limit."""
    one, two = make("one"), make("two", **other)
    await two.warm()
    await refuse(service, one)
    for _ in range(20):
        assert two.paused in (0, seconds)
        await asyncio.sleep(0)
    assert two.paused == seconds


async def test_the_key_reveals_nothing(make, service, shop, until):
    """A pause lies under a hash."""
    kept = []
    pause = shop.pause

    async def note(key, seconds):
        kept.append((key, seconds))
        await pause(key, seconds)

    shop.pause = note
    await refuse(service, make())
    await until(lambda: kept)
    [(found, seconds)] = kept
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert found != shop.key
    assert seconds == 30


async def test_a_wait_against_the_policy_is_not_told(make, service, until):
    """What the caller does not wait for, nobody waits for: everybody hears of it, and decides."""
    one, two = make("one"), make("two")
    await refuse(service, one, "30", Retry(attempts=1, max_retry_after=29))
    for _ in range(20):
        assert (one.paused, two.paused) == (0, 0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("retry_after", [None, "0", "-5", "soon", "nan", "1e999"])
async def test_no_wait_that_is_no_wait(make, service, shop, retry_after):
    """A 429 that names no time pauses nobody."""
    one = make()
    await refuse(service, one, retry_after)
    await asyncio.sleep(0)
    assert one.paused == 0


async def test_many_refusals_are_told_once(make, service, shop):
    """Calls are refused together, and the store hears of one pause."""
    told = []

    async def note(key, seconds):
        told.append(seconds)

    shop.pause = note
    one = make()
    await one.warm()
    await asyncio.gather(*(refuse(service, one) for _ in range(20)))
    await asyncio.sleep(0)
    assert told == [30]


async def test_the_store_is_looked_at_rarely(make, shop, clock):
    """However many calls are made, at most five times a second; and never without a call."""
    looks = []
    paused = shop.paused

    async def note(key):
        looks.append(clock.now)
        return await paused(key)

    shop.paused = note
    one = make()
    for _ in range(30):
        await one.ask("?")
    assert len(looks) == 1
    clock.advance(0.25)
    await asyncio.gather(*(one.ask("?") for _ in range(30)))
    assert len(looks) == 2


# --- stores that fail, or were written for older releases


async def test_a_store_that_always_says_wait(make, clock, nap):
    """A call waits no longer than its policy allows, whatever the store says."""
    store = MemoryStore(clock=clock)

    async def paused(key):
        return 3000.0

    store.paused = paused
    one = make(store=store)
    await one.ask("?", retry=0)
    await asyncio.sleep(0)
    assert (await one.ask("?", retry=Retry(max_retry_after=60))).text == TEXT
    assert sum(float(seconds.expected) for seconds in nap.slept) == 60


@pytest.mark.parametrize("how", ["raises", "hangs", "cancels", "nonsense"])
@pytest.mark.parametrize("methods", [["paused"], ["pause"], ["pause", "paused"]], ids="-".join)
async def test_a_store_that_fails_pauses_nobody(prefix_for, service, clock, told, until, how, methods):
    """The calls are answered, none waits for the store, and the failure is reported once."""
    timing = Timing(store_limit=0.01 if how == "hangs" else 5)
    store = Broken(clock, how, *methods)
    one = prefix_for(store=store, _timing=timing)
    for _ in range(3):
        assert (await one.ask("?", retry=0)).text == TEXT
        await refuse(service, one, "0.001")
    assert len(service.creates) == 1
    if (how, methods) != ("nonsense", ["pause"]):  # nobody looks at what that returns
        await until(lambda: any(name == "on_warning" for name, _ in told))
    assert [event.kind for name, event in told if name == "on_warning"] in ([], ["store"])


@pytest.mark.parametrize("found", [float("nan"), float("inf"), -float("inf"), None, "soon"])
async def test_no_duration(make, clock, told, until, found):
    """What somebody else's store returns is looked at."""
    store = MemoryStore(clock=clock)

    async def paused(key):
        return found

    store.paused = paused
    one = make(store=store)
    assert (await one.ask("?")).text == TEXT
    await until(lambda: any(name == "on_warning" for name, _ in told))
    assert one.paused == 0


class Old:
    """A store written for a release without pauses."""

    def __init__(self, store):
        for name in "get put touch forget lease release aclose".split():
            setattr(self, name, getattr(store, name))


async def test_a_store_for_an_older_release(make, service, shop, told):
    """It works, says nothing, and shares no pauses."""
    one, two = make("one", Old(shop)), make("two", Old(shop))
    await refuse(service, one)
    assert (await two.ask("?")).text == TEXT
    assert (one.paused, two.paused) == (0, 0)
    assert {name for name, _ in told} == {"on_create"}


async def test_no_store(make, service):
    """Without a store nobody waits for another's 429."""
    one = make(store=None)
    await refuse(service, one)
    assert one.paused == 0


async def test_a_closed_store_pauses_nobody(make, service, shop, told):
    """Its owner is done with the store; that is nothing to warn of."""
    one = make()
    await one.warm()
    await shop.aclose()
    await refuse(service, one, "0.5")
    await asyncio.sleep(0)
    assert "on_warning" not in {name for name, _ in told}


async def test_the_time_for_a_call_counts(prefix_for, service, shop, clock, until):
    """A pause that lasts longer than the time for the whole call ends in that error; nothing was sent."""

    async def sleep(seconds):
        await asyncio.Event().wait()

    one = prefix_for(store=shop, _timing=Timing(monotonic=clock, sleep=sleep))
    await refuse(service, one)
    sent = len(service.chats)
    with pytest.raises(APITimeoutError) as caught:
        await one.ask("?", timeouts=0.01)
    assert not caught.value.sent
    assert len(service.chats) == sent
