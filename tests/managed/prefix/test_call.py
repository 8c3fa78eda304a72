"""`call`: a call whose context is gone is repeated on the next one, and no more often than that."""

import asyncio

import pytest

from ctxcache import (
    APITimeoutError,
    AsyncSession,
    BadRequestError,
    ContextGoneError,
    Hooks,
    Limits,
    Retry,
    Timeouts,
    system,
)
from ctxcache.managed import MemoryStore, Prefix

from ..conftest import MANUAL, MODEL
from ..service import TEXT


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_a_context_found_gone_is_made_anew_and_the_call_repeated(prefix, service, told, log_lines, way):
    """One create and one POST more; hooks and log say which context went, and why."""
    lines = log_lines("INFO")
    await prefix.warm()
    service.expire()
    if way == "ask":
        assert (await prefix.ask("?")).text == TEXT
    else:
        assert "".join([text async for text in prefix.stream("?").text()]) == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})
    assert [name for name, _ in told] == ["on_create", "on_recreate"]
    assert (told[1][1].old_id, told[1][1].reason) == ("ctx-1", "gone")
    lines = log_lines("INFO")
    assert lines == [
        "context ctx-1: created, ttl 3600 s",
        "context ctx-2: created in place of ctx-1 (gone), ttl 3600 s",
    ]


async def test_answers_name_the_context_of_the_last_attempt(prefix, service):
    """Where a call was repeated on a new context, the answer names that one, and keeps the name when more follow."""
    await prefix.warm()
    service.expire()
    answer = await prefix.ask("?")
    service.expire()
    stream = prefix.stream("?")
    assert stream.context_id is None
    folded = await stream.finish()
    assert (answer.context_id, stream.context_id, folded.context_id) == ("ctx-2", "ctx-3", "ctx-3")


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_where_every_context_is_gone_at_once_there_is_no_loop(prefix, service, way):
    """Two creates and two POSTs, then the error; the next call does the same again."""
    service.stillborn = float("inf")
    for calls in (1, 2):
        with pytest.raises(ContextGoneError):
            if way == "ask":
                await prefix.ask("?")
            else:
                [_ async for _ in prefix.stream("?")]
        assert (len(service.creates), len(service.chats)) == (2 * calls, 2 * calls)
        assert prefix.context is None


async def test_an_id_that_is_gone_when_it_comes(prefix, service):
    """The context is made once more, and the call is answered."""
    service.stillborn = 1
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})


async def test_another_error_is_raised_as_it_is(prefix, service):
    """Only what says that the context is gone is repeated."""
    service.create_errors.append(400)
    with pytest.raises(BadRequestError):
        await prefix.ask("?")
    assert (len(service.creates), service.chats) == (1, [])


async def test_what_gone_means_may_be_said_otherwise(prefix_for, service):
    """The predicate is the caller's; so it can also say that nothing is."""
    prefix = prefix_for(is_gone=lambda error: False)
    service.fate("gone")
    with pytest.raises(ContextGoneError):
        await prefix.ask("?")
    assert (len(service.creates), len(service.chats)) == (1, 1)
    assert prefix.context.id == "ctx-1"


async def test_a_second_error_is_raised_as_it_is(prefix, service):
    """If the context cannot be made anew, the caller is told why."""
    await prefix.warm()
    service.expire()
    service.create_errors.extend([400])
    with pytest.raises(BadRequestError):
        await prefix.ask("?")
    assert (len(service.creates), len(service.chats)) == (2, 1)
    await prefix.ask("?")
    assert len(service.creates) == 3


async def test_fifty_that_find_the_same_context_gone_make_one_new(prefix, service, until):
    """Two creates in all, each call repeated once."""
    await prefix.warm()
    service.expire()
    service.chatting.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(50)]
    await until(lambda: service.waiting == 50)
    service.chatting.set()
    assert {reply.text for reply in await asyncio.gather(*asking)} == {TEXT}
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 50, "ctx-2": 50})


async def test_who_finds_it_gone_late_takes_the_new_one(prefix, service, until):
    """A straggler does not throw away what has come in its place."""
    await prefix.warm()
    service.streaming.clear()
    service.fate("middle")
    straggler = asyncio.create_task(collect(prefix.stream("late")))
    await until(lambda: service.chats)
    service.fate("gone")
    await prefix.ask("?")
    service.streaming.set()
    with pytest.raises(ContextGoneError):
        await straggler
    assert prefix.context.id == "ctx-2"
    await prefix.ask("?")
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 2, "ctx-2": 2})


async def test_a_straggler_is_repeated_on_the_new_one(prefix, service, until):
    """One create for both."""
    await prefix.warm()
    service.chatting.clear()
    service.fate("gone", "gone")
    asking = [asyncio.create_task(prefix.ask(question)) for question in ("early", "late")]
    await until(lambda: service.waiting == 2)
    service.chatting.set()
    assert [reply.text for reply in await asyncio.gather(*asking)] == [TEXT, TEXT]
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 2, "ctx-2": 2})


async def collect(stream):
    """All chunks."""
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("way", ["ask", "stream", "late", "middle"])
async def test_a_predicate_that_raises_is_no_answer(prefix_for, service, log_lines, way):
    """The caller gets the service's error, not the predicate's; the context is taken to be there."""

    def broken(error):
        raise LookupError("no such code")

    prefix = prefix_for(is_gone=broken)
    service.fate("gone" if way in ("ask", "stream") else way)
    log_lines("ERROR")
    with pytest.raises(ContextGoneError):
        if way == "ask":
            await prefix.ask("?")
        else:
            [_ async for _ in prefix.stream("?")]
    assert (len(service.creates), len(service.chats)) == (1, 1)
    assert prefix.context.id == "ctx-1"
    assert log_lines("ERROR")


# --- the moment of sending


@pytest.fixture
async def narrow(service, key, clock):
    """A prefix whose session has one connection."""
    limits = Limits(connections=1)
    async with AsyncSession(key, service.url, retry=Retry(first_delay=0), limits=limits) as session:
        yield Prefix(session, model=MODEL, messages=[system(MANUAL)], ttl=3600, clock=clock)


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_the_context_is_chosen_after_the_wait_for_a_connection(narrow, service, until, way):
    """Whoever waited in line while it died and was replaced does not try the dead one."""
    await narrow.warm()
    service.chatting.clear()
    service.fate("gone")
    calls = [narrow.ask("?") if way == "ask" else collect(narrow.stream("?")) for _ in range(20)]
    asking = [asyncio.create_task(call) for call in calls]
    await until(lambda: service.waiting)
    service.chatting.set()
    await asyncio.gather(*asking)
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 20})


async def test_the_context_is_chosen_for_each_attempt(service, key, clock):
    """One that dies while a call waits for its retry is not tried again."""

    def expire(event):
        clock.advance(4000)

    service.fate("broken")
    async with AsyncSession(key, service.url, retry=Retry(first_delay=0), hooks=Hooks(on_retry=expire)) as session:
        prefix = Prefix(session, model=MODEL, messages=[system(MANUAL)], ttl=3600, clock=clock)
        assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})


async def test_a_context_that_hardly_lives_is_used_all_the_same(prefix, service, clock, until):
    """One that counts as expired as soon as it is there is no reason to create another, and another."""
    service.ttls.append(10)
    service.creating.clear()
    asking = asyncio.create_task(prefix.ask("?"))
    await until(lambda: service.creates)
    clock.advance(9.5)
    service.creating.set()
    assert (await asking).text == TEXT
    assert len(service.creates) == 1


async def test_a_repeat_goes_first(narrow, service, until):
    """A call whose context died has waited once, and its next context may die as well."""
    await narrow.warm()
    service.chatting.clear()
    service.fate("gone")
    asking = [asyncio.create_task(narrow.ask(f"{number}?")) for number in range(5)]
    await until(lambda: service.waiting)
    service.chatting.set()
    await asyncio.gather(*asking)
    asked = [chat["messages"][0]["content"] for chat in service.chats]
    assert "0?" in asked[1:4]


async def test_calls_outlive_contexts_that_are_killed(service, key, clock):
    """Three hundred at once over thirty connections, while every fiftieth chat kills the context: all are answered."""
    limits = Limits(connections=30)
    async with AsyncSession(key, service.url, retry=Retry(first_delay=0), limits=limits) as session:
        prefix = Prefix(session, model=MODEL, messages=[system(MANUAL)], ttl=3600, clock=clock)
        service.fate(*(["fine"] * 49 + ["gone"]) * 12)
        replies = await asyncio.gather(*(prefix.ask("?") for _ in range(300)))
    assert {reply.text for reply in replies} == {TEXT}
    assert len(service.chats) <= 2.25 * 300
    assert len(service.creates) <= 13


# --- the time limit


@pytest.mark.parametrize("way", ["ask", "stream"])
@pytest.mark.parametrize("whose", ["call", "session"])
async def test_the_time_limit_includes_the_wait_for_a_context(service, key, clock, way, whose):
    """Of the call or of the session; the create itself goes on for the next call."""
    limit = Timeouts(total=0.05)
    settings = {"timeouts": limit} if whose == "session" else {}
    async with AsyncSession(key, service.url, **settings) as session:
        prefix = Prefix(session, model=MODEL, messages=[system(MANUAL)], ttl=3600, clock=clock)
        service.creating.clear()
        options = {"timeouts": limit} if whose == "call" else {}
        with pytest.raises(APITimeoutError, match=r"0\.05 s \(Timeouts\.total\)"):
            await (prefix.ask("?", **options) if way == "ask" else collect(prefix.stream("?", **options)))
        service.creating.set()
        if whose == "call":
            assert (await prefix.ask("?")).text == TEXT
            assert len(service.creates) == 1
    assert len(service.chats) == (1 if whose == "call" else 0)


async def test_the_time_limit_includes_the_wait_for_a_connection(narrow, service, until):
    """And what was waited before that counts."""
    await narrow.warm()
    service.chatting.clear()
    asking = asyncio.create_task(narrow.ask("?"))
    await until(lambda: service.waiting)
    with pytest.raises(APITimeoutError, match=r"Timeouts\.total"):
        await narrow.ask("?", timeouts=Timeouts(total=0.05))
    service.chatting.set()
    await asking
    assert len(service.chats) == 1


async def test_a_question_s_time_limit_is_no_outage(narrow, service, until, log_lines):
    """In a map, a question that waited too long for a connection fails alone: no pause for all, no repeat."""
    service.chatting.clear()
    async with narrow.map(["0?", "1?"], concurrency=2, timeouts=Timeouts(total=0.3)) as answers:
        failed = [await anext(answers) for _ in range(2)]
    assert {type(answer.error) for answer in failed} <= {APITimeoutError}
    assert [answer.error.limit for answer in failed] == ["total"] * 2
    assert len(service.chats) == 1
    assert log_lines("WARNING") == []


@pytest.mark.parametrize("fates", [("late", "late", "fine"), ("gone", "late", "late")])
async def test_a_stream_is_repeated_twice_where_the_second_context_was_adopted(prefix_for, service, fates):
    """The third and last POST is on a context created for it."""
    store = MemoryStore()
    one, two = prefix_for(store=store), prefix_for(store=store)
    await one.warm()
    service.expire()
    await two.ask("?")  # which puts another in its place
    service.chats.clear()
    service.fate(*fates)
    if fates[-1] == "fine":
        async with one.stream("?") as stream:
            assert "".join([text async for text in stream.text()]) == TEXT
    else:
        with pytest.raises(ContextGoneError):
            await collect(one.stream("?"))
    assert (len(service.creates), len(service.chats)) == (3, 3)
