"""Leaving a stream: the connection is closed, nothing is held, and the next call works."""

import asyncio
import gc
import tracemalloc

import aiohttp
import pytest

from ctxcache import (
    APIConnectionError,
    CtxCacheError,
    Limits,
    ReplyLostError,
    Retry,
    SessionError,
    StreamInterruptedError,
    Timeouts,
)

from ..hostile import (
    CHAT,
    SSE,
    STALL,
    STORY,
    answer,
    piece,
    pieces,
    refusal,
    sets,
    streamed,
)
from .calling import reachable, texts


@pytest.fixture
def session(session_for):
    """Here, a session of one connection: a leak shows as a call that finds none."""
    return session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=1, head=5, idle=5))


async def closed_and_usable(hostile, session, held):
    """The connection is closed, nothing is held, and a following call works."""
    await hostile.until(lambda: not hostile.open)
    assert held(session) == {}
    hostile.plays([answer()])
    assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_leave_by_break(hostile, session, held):
    """`break` out of `async with` closes the connection."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async with session.chat.stream(**CHAT) as stream:
        async for _ in stream:
            break
    await closed_and_usable(hostile, session, held)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.completion()
    assert caught.value.partial.text == "Once" == stream.partial().text


async def test_leave_by_exception(hostile, session, held):
    """An exception of the caller's own passes through, and the connection is closed."""
    hostile.plays([SSE, piece(STORY[0]), STALL])

    async def leave():
        async with session.chat.stream(**CHAT) as stream:
            async for _ in stream:
                raise KeyError

    with pytest.raises(KeyError):
        await leave()
    await closed_and_usable(hostile, session, held)


async def test_leave_by_aclose(hostile, session, held):
    """`aclose()` closes the connection; iterating on raises, though chunks had come; a second `aclose` does nothing."""
    hostile.plays([SSE, b"".join(pieces(*STORY[:3])), STALL])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    await stream.aclose()
    await stream.aclose()
    await closed_and_usable(hostile, session, held)
    with pytest.raises(StreamInterruptedError):
        await anext(stream)


async def test_leave_by_cancel(hostile, session, held):
    """Cancelling a reader closes the connection; the stream, iterated again, says that it was closed."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed_and_usable(hostile, session, held)
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert caught.value.partial.text == "Once"


async def test_leave_by_garbage_collection(hostile, session, held):
    """A stream that is forgotten is closed."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = session.chat.stream(**CHAT, serialize=True)
    async for _ in stream:
        break
    del stream
    gc.collect()
    await closed_and_usable(hostile, session, held)


@pytest.mark.parametrize("how", ["opened", "wait_for", "entered", "read"])
async def test_leave_results_of_tasks(hostile, session, held, how):
    """So is one that is the result of a task, which opened it or worked with it."""

    async def work(stream):
        if how == "entered":
            return await stream.__aenter__()
        if how == "read":
            await anext(aiter(stream))
        return stream

    hostile.plays([SSE, piece(STORY[0]), STALL])
    opening = session.chat.create(**CHAT, serialize=True, stream=True)
    # Up to Python 3.11 wait_for makes a task as well.
    stream = await (asyncio.wait_for(opening, 5) if how == "wait_for" else asyncio.ensure_future(opening))
    stream = await asyncio.ensure_future(work(stream))
    del stream
    gc.collect()
    await closed_and_usable(hostile, session, held)


async def test_leave_text_by_garbage_collection(hostile, session, held):
    """A `text()` generator that is left and forgotten is closed with its stream."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async for text in session.chat.stream(**CHAT).text():
        assert text == "Once"
        break
    gc.collect()
    await closed_and_usable(hostile, session, held)


async def test_close_the_session_under_a_reader(hostile, session_for):
    """`session.aclose()` gives each waiting reader an error at once, with what came, and returns."""
    session = session_for()
    hostile.plays(*[[SSE, piece(STORY[0]), STALL]] * 3)
    streams = [session.chat.stream(**CHAT) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    readers = [asyncio.ensure_future(anext(stream)) for stream in streams[:2]]
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await session.aclose()
        for reader in [*readers, anext(streams[2])]:  # the third began to wait too late
            with pytest.raises(StreamInterruptedError, match="session was closed") as caught:
                await reader
            assert caught.value.partial.text == "Once"
            assert isinstance(caught.value.cause, SessionError)
    await hostile.until(lambda: not hostile.open)


async def test_close_under_a_reader(hostile, session, held):
    """`stream.aclose()` by one task gives the task that reads it an error at once."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(StreamInterruptedError) as caught:
        await reader
    assert caught.value.partial.text == "Once"
    await closed_and_usable(hostile, session, held)


async def closed_while_opening(stream, opening):
    """Close a stream in this task while another opens it: return the error that the other gets, at once."""
    await stream.aclose()
    with pytest.raises(CtxCacheError, match="the stream was closed") as caught:
        async with asyncio.timeout(1):
            await opening
    with pytest.raises(type(caught.value)):
        await anext(stream)
    assert not stream.done
    return caught.value


@pytest.mark.parametrize(
    "script", [[], [answer()[:-1]], [refusal(500)[:-1]], [refusal(429)[:-1]]], ids=["head", "json", "500", "429"]
)
async def test_close_while_opening(hostile, session, held, script):
    """`stream.aclose()` by another task ends the opening at once; where the POST had left, it may have run."""
    reached = asyncio.Event()
    hostile.plays([*script, sets(reached), STALL])
    stream = session.chat.stream(**CHAT, serialize=True)
    opening = asyncio.ensure_future(stream.open())
    await reached.wait()
    error = await closed_while_opening(stream, opening)
    assert isinstance(error, ReplyLostError)
    assert isinstance(error.cause, APIConnectionError)
    assert (error.cause.sent, error.attempts, len(hostile.posts)) == (True, 1, 1)
    assert error.client_request_id == hostile.posts[0].headers["x-client-request-id"]
    await closed_and_usable(hostile, session, held)


@pytest.mark.parametrize(("waits_for", "serialize"), [("turn", True), ("connection", False)])
async def test_close_while_waiting(hostile, session, held, waits_for, serialize):
    """Where the opening still waits for its turn or for a connection, nothing was sent: a `SessionError`."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async with session.chat.stream(**CHAT, serialize=True):
        stream = session.chat.stream(**CHAT, serialize=serialize)
        opening = asyncio.ensure_future(stream.open())
        for _ in range(20):
            await asyncio.sleep(0)
        error = await closed_while_opening(stream, opening)
        assert held(session) == {"queues": 1, "exchanges": 1, "slots": 1}
    assert type(error) is SessionError
    assert (error.attempts, len(hostile.posts)) == (waits_for == "connection", 1)
    await closed_and_usable(hostile, session, held)


async def test_close_in_a_pause(hostile, session_for, held, log_lines):
    """Between two attempts, of which the first did not run, it is a `SessionError` as well, and ends the pause."""
    session = session_for(retry=Retry(first_delay=30, max_delay=30))
    hostile.plays([refusal(429)])
    stream = session.chat.stream(**CHAT, serialize=True)
    opening = asyncio.ensure_future(stream.open())
    await hostile.until(lambda: log_lines("WARNING"))
    error = await closed_while_opening(stream, opening)
    assert type(error) is SessionError
    assert (error.attempts, len(hostile.posts)) == (1, 1)
    assert held(session) == {}
    hostile.plays([answer()])
    assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_cancel_beats_close(hostile, session, held):
    """An opening that is cancelled in the moment in which its stream is closed ends as cancelled."""
    hostile.plays([STALL])
    stream = session.chat.stream(**CHAT, serialize=True)
    opening = asyncio.ensure_future(stream.open())
    await hostile.until(lambda: hostile.posts)
    await stream.aclose()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await closed_and_usable(hostile, session, held)


async def test_timeout_of_the_caller(hostile, session, held):
    """`asyncio.timeout` around the reading leaves nothing behind."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), session.chat.stream(**CHAT) as stream:
            await texts(stream)
    await closed_and_usable(hostile, session, held)


@pytest.mark.parametrize("how", ["aclose", "session", "cancel"])
async def test_a_closed_stream_lets_go_of_what_it_had_read(hostile, session_for, how):
    """What a stream had received and not decoded is freed when it is closed, though the stream itself is kept."""
    session = session_for()
    sent = asyncio.Event()
    hostile.plays([SSE, piece(STORY[0]), piece(b"data: " + b"x" * 4_000_000), sets(sent), STALL])
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    tracemalloc.start()
    reading = asyncio.ensure_future(anext(stream))
    await sent.wait()
    await hostile.until(lambda: hostile.connections[0].writer.transport.get_write_buffer_size() == 0)
    await hostile.until(lambda: tracemalloc.get_traced_memory()[0] > 4_000_000)
    if how == "cancel":
        reading.cancel()
    else:
        await (stream if how == "aclose" else session).aclose()
    with pytest.raises((StreamInterruptedError, asyncio.CancelledError)):
        await reading
    reading = None
    await hostile.until(lambda: not hostile.open)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000
    assert stream.partial().text == "Once"


async def test_a_closed_stream_holds_no_response(hostile, session):
    """Nor does it keep what waits in aiohttp's buffers, or the response."""
    hostile.plays([SSE, b"".join(pieces(*STORY[:2])), STALL])
    stream = await session.chat.stream(**CHAT).open()
    await stream.aclose()
    await hostile.until(lambda: not hostile.open)
    gc.collect()
    assert [found for found in gc.get_objects() if type(found) is aiohttp.StreamReader] == []
    assert stream.partial().text == ""


async def test_leave_unread_chunks(hostile, session, held):
    """A stream that came whole and is closed before its last chunks were read is not whole."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    await stream.aclose()
    assert held(session) == {}
    with pytest.raises(StreamInterruptedError):
        await anext(stream)
    assert not stream.done


async def test_an_open_stream_lets_go_of_its_request(hostile, session):
    """The body of a request, a long prompt perhaps, is not kept while its stream is read."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    prompt = "a prompt " * 10_000
    messages = [{"role": "user", "content": prompt}]
    async with session.chat.stream(**{**CHAT, "messages": messages}) as stream:
        await anext(stream)
        assert [held for held in reachable(stream) if isinstance(held, bytes) and len(held) > len(prompt)] == []
