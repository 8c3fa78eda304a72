"""`calls` and a context that is chosen at the moment of sending."""

import asyncio

import pytest

from ctxcache import APITimeoutError, Hooks, InvalidInputError, Limits, Retry, Timeouts
from ctxcache.client.call import ContextMissing
from ctxcache.models import user

from ..hostile import DONE, END, SSE, after, answer, chunk, pieces, refusal


@pytest.fixture
def prepare(session):
    """Prepare a chat on `session`."""
    return lambda **options: session.chat.prepare(model="m", messages=[user("?")], repeatable=True, **options)


async def test_it_is_chosen_for_each_attempt(hostile, session, prepare):
    """A retry is sent on the context of its own moment."""
    hostile.plays([refusal(500)], [answer()])
    chosen = iter(["ctx-1", "ctx-2"])
    await session.chat.send(prepare(), lambda: next(chosen))
    assert [post.json["context_id"] for post in hostile.posts] == ["ctx-1", "ctx-2"]


async def test_it_is_chosen_after_the_wait_for_a_connection(hostile, session_for):
    """Not before: what becomes of contexts meanwhile, the call hears of."""
    session = session_for(limits=Limits(connections=1))
    prepared = session.chat.prepare(model="m", messages=[user("?")])
    go, current = asyncio.Event(), "ctx-1"
    hostile.plays([after(go), answer()], [answer()])
    first, second = [asyncio.create_task(session.chat.send(prepared, lambda: current)) for _ in range(2)]
    await hostile.until(lambda: hostile.posts)
    current = "ctx-2"
    go.set()
    await asyncio.gather(first, second)
    assert [post.json["context_id"] for post in hostile.posts] == ["ctx-1", "ctx-2"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stream_may_choose_as_well(hostile, session, prepare, stream):
    """Its request says so."""
    hostile.plays([SSE, *pieces(chunk("Hi", finish="stop"), DONE), END] if stream else [answer()])
    if stream:
        async with await session.chat.open_stream(prepare(stream=True), lambda: "ctx-7") as opened:
            [_ async for _ in opened]
    else:
        await session.chat.send(prepare(), lambda: "ctx-7")
    assert [post.json["context_id"] for post in hostile.posts] == ["ctx-7"]


@pytest.mark.parametrize("times", [0, 1])
async def test_where_there_is_none_nothing_is_sent(hostile, session_for, times):
    """At the beginning, or when a connection is at hand; the connection is given back, and no hook hears of a call."""
    reported = []
    session = session_for(limits=Limits(connections=1), hooks=Hooks(on_call=reported.append))
    prepared = session.chat.prepare(model="m", messages=[user("?")])
    chosen, go = ["ctx-1"] * times, asyncio.Event()

    def choose():
        if not chosen:
            raise ContextMissing
        return chosen.pop()

    hostile.plays([after(go), answer()], [answer()])
    first = asyncio.create_task(session.chat.send(prepared, "ctx-1"))
    await hostile.until(lambda: hostile.posts)
    second = asyncio.create_task(session.chat.send(prepared, choose))
    for _ in range(5):
        await asyncio.sleep(0)
    go.set()
    with pytest.raises(ContextMissing):
        await second
    await first
    await session.chat.send(prepared, "ctx-1")
    assert (len(hostile.posts), len(reported)) == (2, 2)


@pytest.mark.parametrize("context", ["", 5, None])
async def test_a_context_id_is_checked(session, prepare, context):
    """Also one that was chosen."""
    for given in (context, lambda: context):
        with pytest.raises(InvalidInputError, match="context_id"):
            await session.chat.send(prepare(), given)


async def test_an_urgent_call_goes_first(hostile, session_for):
    """It waits for a connection in front of the others."""
    session = session_for(limits=Limits(connections=1))
    prepared = session.chat.prepare(model="m", messages=[user("?")])
    go = asyncio.Event()
    hostile.plays([after(go), answer()], [answer()], [answer()])
    tasks = [asyncio.create_task(session.chat.send(prepared, "ctx-1"))]
    await hostile.until(lambda: hostile.posts)
    tasks += [asyncio.create_task(session.chat.send(prepared, f"ctx-{n}", urgent=n == 3)) for n in (2, 3)]
    for _ in range(5):
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert [post.json["context_id"] for post in hostile.posts] == ["ctx-1", "ctx-3", "ctx-2"]


async def test_what_was_waited_before_counts(hostile, session_for):
    """For `Timeouts.total`."""
    session = session_for(timeouts=Timeouts(total=60), retry=Retry(attempts=1))
    prepared = session.chat.prepare(model="m", messages=[user("?")])
    hostile.plays([after(asyncio.Event())])
    with pytest.raises(APITimeoutError, match=r"60 s \(Timeouts\.total\)"):
        await session.chat.send(prepared, "ctx-1", waited=60)


async def test_a_call_whose_time_is_up_is_not_sent(hostile, session_for):
    """Though a connection is at hand, and a request could leave at once."""
    session = session_for(timeouts=Timeouts(total=60))
    prepared = session.chat.prepare(model="m", messages=[user("?")])
    hostile.plays([answer()], [answer()])
    await session.chat.send(prepared, "ctx-1")
    for waited in (60, 61):
        with pytest.raises(APITimeoutError, match=r"60 s \(Timeouts\.total\)") as caught:
            await session.chat.send(prepared, "ctx-1", waited=waited)
        assert (caught.value.sent, caught.value.attempts) == (False, 0)
    await session.chat.send(prepared, "ctx-1")
    assert len(hostile.posts) == 2
