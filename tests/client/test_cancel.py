"""Cancelling at every await point: nothing is leaked, and the next call works."""

import asyncio

import pytest

from ctxcache import Limits, Retry, Timeouts

from ..hostile import CHAT, CLOSE, CONTEXT, CREATE, END, SSE, STORY, STORY_TEXT, answer, pieces, refusal, streamed

SETTINGS = {"limits": Limits(connections=1), "retry": Retry(first_delay=0)}


async def plain(session):
    """A plain call."""
    return (await session.chat.create(**CHAT, serialize=True)).text


async def stream(session):
    """A stream, read inside `async with`."""
    async with session.chat.stream(**CHAT, serialize=True) as opened:
        return "".join([chunk.text async for chunk in opened])


async def bare_stream(session):
    """A stream, just iterated."""
    return "".join([text async for text in session.chat.stream(**CHAT, serialize=True).text()])


async def opening(session):
    """A stream that is opened and closed unread."""
    opened = await session.chat.create(**CHAT, serialize=True, stream=True)
    await opened.aclose()


async def create(session):
    """A create."""
    return (await session.context.create(**CREATE)).id


async def with_total(session):
    """A plain call under a total limit."""
    return (await session.chat.create(**CHAT, serialize=True, timeouts=Timeouts(total=9, pool=9))).text


WHOLE = [answer()]
IN_PIECES = [SSE, *pieces(*STORY), END]
CALLS = {
    "plain": (plain, [WHOLE]),
    "retried": (plain, [[refusal(429)], [refusal(403, "OperationDenied.InvalidState")], WHOLE]),
    "with total": (with_total, [[refusal(429)], WHOLE]),
    "create": (create, [[CLOSE], [answer(CONTEXT)]]),
    "stream": (stream, [IN_PIECES]),
    "streamed at once": (stream, [[streamed()]]),
    "bare stream": (bare_stream, [[refusal(429)], IN_PIECES]),
    "never ended": (stream, [IN_PIECES[:-1]]),
    "opening": (opening, [IN_PIECES]),
}


async def steps(count):
    """Let the event loop take so many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


async def given_back(hostile, session, held):
    """The session comes to hold nothing."""
    await hostile.until(lambda: held(session) == {})


async def settled(hostile, session, held, tasks):
    """All that the cancelled call held is given back, and a call works."""
    await given_back(hostile, session, held)
    await hostile.until(lambda: asyncio.all_tasks() - hostile._tasks == tasks)
    await hostile.until(lambda: all(connection.idle for connection in hostile.open))
    hostile.scripts.clear()
    hostile.plays(*[WHOLE] * 3)  # the cancelled request may be on its way and take one
    assert (await session.chat.create(**CHAT, serialize=True)).text == "Hi"
    assert held(session) == {}
    hostile.scripts.clear()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
async def test_cancel_a_call(hostile, session_for, held, name, reused):
    """A call cancelled at any step of the loop gives back its turn, its slot and its connection."""
    call, scripts = CALLS[name]
    tasks = asyncio.all_tasks() - hostile._tasks
    for step in range(101):
        session = session_for(**SETTINGS)
        if reused:
            hostile.plays([answer()])
            await session.chat.create(**CHAT)
        hostile.plays(*scripts)
        task = asyncio.ensure_future(call(session))
        await steps(step)
        if step == 100:  # by now it waits for time to pass
            await asyncio.wait([task])
        if task.done():
            assert task.result() in ("Hi", STORY_TEXT, "ctx-1", None)
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(hostile, session, held, tasks)
        await session.aclose()
    assert step > 3


@pytest.mark.parametrize("holder", [plain, stream])
async def test_cancel_while_waiting_for_a_turn(hostile, session_for, held, holder):
    """Who is cancelled while waiting for its turn leaves the line; the holder and the others in line are served."""
    for step in range(1000):
        session = session_for(limits=Limits(connections=3))
        hostile.plays(IN_PIECES if holder is stream else WHOLE, WHOLE, WHOLE)
        first = asyncio.ensure_future(holder(session))
        await asyncio.sleep(0)
        second, third = (asyncio.ensure_future(plain(session)) for _ in range(2))
        await steps(step)
        finished = second.done()
        second.cancel()
        assert await first in ("Hi", STORY_TEXT)
        assert await third == "Hi"
        await asyncio.wait([second])
        await given_back(hostile, session, held)
        await session.aclose()
        hostile.scripts.clear()
        if finished:
            break
    else:
        raise AssertionError("never done")
    assert step > 3


@pytest.mark.parametrize("name", ["plain", "stream"])
async def test_cancel_the_one_whose_turn_it_is(hostile, session_for, held, name):
    """When the holder is cancelled, at any step, the next in line is served."""
    call, scripts = CALLS[name]
    for step in range(1000):
        session = session_for(**SETTINGS)
        hostile.plays(*scripts, WHOLE)
        first = asyncio.ensure_future(call(session))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(plain(session))
        await steps(step)
        finished = first.done()
        first.cancel()
        await asyncio.wait([first])
        hostile.scripts.clear()
        hostile.plays(WHOLE, WHOLE)  # the first call's request may be on its way still
        assert await second == "Hi"
        await given_back(hostile, session, held)
        await session.aclose()
        hostile.scripts.clear()
        if finished:
            break
    else:
        raise AssertionError("never done")


async def test_cancel_all_at_once(hostile, session_for, held):
    """Many calls on one context, all cancelled at any step, leave nothing."""
    for step in range(40):
        session = session_for(**SETTINGS)
        hostile.plays(*[WHOLE] * 10)
        calls = [asyncio.ensure_future(plain(session)) for _ in range(6)]
        await steps(step)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await given_back(hostile, session, held)
        hostile.scripts.clear()
        await session.aclose()


async def test_cancel_the_closing_of_a_session(hostile, session_for, held):
    """A session whose closing was cancelled holds no exchange, and can be closed again."""
    for step in range(20):
        session = session_for(**SETTINGS)
        hostile.plays(IN_PIECES[:2])
        opened = await session.chat.create(**CHAT, stream=True, serialize=True)
        closing = asyncio.ensure_future(session.aclose())
        await steps(step)
        closing.cancel()
        await asyncio.wait([closing])
        await session.aclose()
        assert held(session) == {}
        await opened.aclose()
        await hostile.until(lambda: not hostile.open)
