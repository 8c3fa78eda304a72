"""A relayed stream: every chunk once, an error as an event, heartbeats, and nothing left when the reader leaves."""

import asyncio
import contextlib
import gc
import inspect
import json

import pytest

from ctxcache import (
    APIStatusError,
    AsyncSession,
    AuthenticationError,
    ContextBusyError,
    InvalidInputError,
    Limits,
    SessionError,
    Timeouts,
)
from ctxcache.client.streamed_answer import StreamedAnswer
from ctxcache.sse import SSEDecoder

from ..hostile import (
    CHAT,
    DONE,
    END,
    RESET,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    Hostile,
    after,
    answer,
    chunk,
    event,
    piece,
    pieces,
    refusal,
    sets,
    streamed,
)

BEAT = 0.001


@pytest.fixture
def session(session_for):
    """Here, a session of one connection: a leak shows as a call that finds none."""
    return session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=1, head=5, idle=5))


def reads():
    """The tasks that read for a relay."""
    return [task for task in asyncio.all_tasks() if "_next" in str(task.get_coro())]


@pytest.fixture
async def left_nothing(hostile, session, held):
    """Check that the connection is closed, or kept after a whole answer, no read goes on, and a next call works."""

    async def check(*, kept=False):
        await hostile.until(lambda: kept or not hostile.open)
        assert held(session) == {}
        assert reads() == []
        hostile.plays([answer()])
        assert (await session.chat.create(**CHAT)).text == "Hi"

    return check


async def relayed(stream, **options):
    """Read a relay to its end; return its events, without comments."""
    return SSEDecoder().feed(b"".join([data async for data in stream.sse(**options)]))


def text_of(events):
    """The text of events that carry chunks."""
    return "".join(json.loads(found.data)["choices"][0]["delta"].get("content", "") for found in events)


@pytest.mark.parametrize("heartbeat", [None, 15])
async def test_whole(hostile, session, held, heartbeat):
    """A relay has an event for each chunk, then the end marker; the stream is read to its end."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    *chunks, last = await relayed(stream, heartbeat=heartbeat)
    assert [json.loads(found.data) for found in chunks] == [
        json.loads(found.removeprefix(b"data: ")) for found in STORY[:3]
    ]
    assert (last.data, {found.event for found in (*chunks, last)}) == ("[DONE]", {"message"})
    assert (stream.done, stream.completion().text, held(session)) == (True, STORY_TEXT, {})


async def test_as_the_service_sent(hostile, session):
    """The JSON goes on as sent, byte by byte: white space, unknown fields, escapes, several lines; comments do not."""
    odd = '{ "choices":[{"delta":{"content":"\\u00fc ü"}}],\ndata:  "new" : 1.50}'.encode()
    hostile.plays([streamed(b": hello\n\n", b"id: 4\ndata: " + odd + b"\n\n", *STORY)])
    stream = session.chat.stream(**CHAT)
    assert b"".join([data async for data in stream.sse()]) == b"data: " + odd + b"\n\n" + b"".join(STORY)


async def test_together(hostile, session):
    """Chunks that came in a single read are passed on in a single piece, in order; so are those not read before."""
    together = SSE + piece(b"".join([*STORY[:3]]))
    later = asyncio.Event()
    hostile.plays(*[[together, after(later), piece(DONE), END]] * 2)
    async with contextlib.aclosing(session.chat.stream(**CHAT).sse()) as relay:
        assert await anext(relay) == b"".join(STORY[:3])
        later.set()
        assert [data async for data in relay] == [DONE]
    later.clear()
    async with session.chat.stream(**CHAT) as stream:
        assert (await anext(stream)).text == "Once"
        relay = stream.sse()
        assert await anext(relay) == STORY[1] + STORY[2]
        later.set()
        assert [data async for data in relay] == [DONE]


@pytest.mark.parametrize(
    ("end", "kind", "code", "message"),
    [
        (RESET, "StreamInterruptedError", None, "the stream was interrupted: "),
        (END, "StreamInterruptedError", None, "the stream ended early"),
        (b"data: {KEY\n\n", "MalformedStreamError", None, "the server's answer is not"),
        (
            event({"error": {"code": "InternalServiceError", "message": "I know KEY"}}),
            "InternalServerError",
            "InternalServiceError",
            "500 InternalServiceError: I know …",
        ),
    ],
    ids=["reset", "early", "malformed", "error event"],
)
@pytest.mark.parametrize("first", [0, 2])
async def test_break(hostile, session, held, key, end, kind, code, message, first):
    """A stream that breaks ends with an error event, after the chunks before, without an end marker or the key."""
    last = end if end in (RESET, END) else piece(end.replace(b"KEY", key.encode()))
    hostile.plays([SSE, *pieces(*STORY[:first]), last])
    *chunks, last = await relayed(session.chat.stream(**CHAT))
    assert text_of(chunks) == ["", "", "Once upon"][first]
    assert last.event == "error"
    error = json.loads(last.data)["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert error["message"].startswith(message)
    assert key not in last.data
    assert held(session) == {}


@pytest.mark.parametrize("opened", [False, True])
async def test_failure_of_opening(hostile, session, opened, left_nothing):
    """An error before the head of the answer is raised, by `open` or else by the relay, which has sent nothing."""
    hostile.plays([refusal(401)])
    stream = session.chat.stream(**CHAT)
    if opened:
        with pytest.raises(AuthenticationError):
            await stream.open()
    pieces_sent = []
    with pytest.raises(APIStatusError) as caught:
        pieces_sent += [data async for data in stream.sse()]
    assert (type(caught.value), pieces_sent, len(hostile.posts)) == (AuthenticationError, [], 1)
    await left_nothing(kept=True)


async def test_heartbeats(hostile, session, left_nothing):
    """While nothing comes there are comments, as many as asked for, and no chunk is lost or doubled by them."""
    steps = [asyncio.Event() for _ in STORY]
    script = [step for when, data in zip(steps, pieces(*STORY), strict=True) for step in (after(when), data)]
    hostile.plays([SSE, *script, END])
    got, beats = b"", 0
    waiting = iter(steps)
    async for data in session.chat.stream(**CHAT).sse(heartbeat=BEAT):
        if data.startswith(b":"):
            assert data.endswith(b"\n\n")
            beats += 1
            if beats % 3 == 0 and (step := next(waiting, None)):
                step.set()
        else:
            got += data
    assert beats >= 3 * len(steps)
    assert got == b"".join(STORY)
    assert SSEDecoder().feed(b": heartbeat\n\n") == []
    await left_nothing(kept=True)


async def test_no_heartbeat(hostile, session):
    """With None, there are no comments, and reading makes no task."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async with session.chat.stream(**CHAT) as stream:
        relay = stream.sse(heartbeat=None)
        assert await anext(relay) == STORY[0]
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(relay)
        assert asyncio.all_tasks() <= before


def test_made_outside_the_event_loop(key):
    """A relay that is made in a thread without an event loop yields the same."""

    async def read():
        async with Hostile() as hostile, AsyncSession(key, hostile.url) as session:
            hostile.plays([streamed()])
            relay = await asyncio.to_thread(session.chat.stream(**CHAT).sse)
            return SSEDecoder().feed(b"".join([data async for data in relay]))

    *chunks, last = asyncio.run(read())
    assert (text_of(chunks), last.data) == (STORY_TEXT, "[DONE]")


async def test_no_heartbeat_before_the_head(hostile, session):
    """Until the head of the answer comes, nothing is sent: an error could still be answered with a status."""
    beginning = asyncio.Event()
    hostile.plays([after(beginning), SSE, *pieces(STORY[0], DONE), END])
    relay = session.chat.stream(**CHAT).sse(heartbeat=BEAT)
    first = asyncio.ensure_future(anext(relay))
    await hostile.until(lambda: hostile.posts)
    await asyncio.wait((first,), timeout=20 * BEAT)
    assert not first.done()
    beginning.set()
    assert await first == STORY[0]
    await relay.aclose()


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan"), float("inf"), "15", True, 86_401, 10**400])
async def test_bad_heartbeat(session, heartbeat):
    """A heartbeat that is no time is refused at once, by name."""
    with pytest.raises(InvalidInputError, match="heartbeat must be a number of seconds in"):
        session.chat.stream(**CHAT).sse(heartbeat=heartbeat)


class TestLeaving:
    """A reader who leaves, in whatever way: the service is told at once."""

    @pytest.mark.parametrize("state", ["chunk", "heartbeat"])
    @pytest.mark.parametrize("how", ["aclose", "forget", "forget, stream kept", "leave the stream"])
    async def test_between_two_reads(self, hostile, session, left_nothing, how, state):
        """Between two pieces, while no read or a read is under way."""
        hostile.plays([SSE, piece(STORY[0]), STALL])
        stream = session.chat.stream(**CHAT, serialize=True)
        relay = stream.sse(heartbeat=BEAT)
        assert await anext(relay) == STORY[0]
        if state == "heartbeat":
            assert (await anext(relay)).startswith(b":")
        if how == "aclose":
            await relay.aclose()
            assert reads() == []
        elif how == "leave the stream":
            await stream.aclose()
            assert b"event: error" in b"".join([data async for data in relay])
        elif how == "forget":
            del stream
        del relay
        gc.collect()
        await left_nothing()

    @pytest.mark.parametrize("how", ["aclose", "aclosing", "athrow", "forget"])
    async def test_before_the_first_piece(self, hostile, session, left_nothing, how):
        """Before the first piece was asked for, though the stream is open."""
        hostile.plays([SSE, piece(STORY[0]), STALL])
        stream = await session.chat.stream(**CHAT, serialize=True).open()
        relay = stream.sse()
        assert inspect.isasyncgen(relay)  # some frameworks ask
        if how == "aclose":
            await relay.aclose()
        elif how == "aclosing":
            async with contextlib.aclosing(relay):
                pass
        elif how == "athrow":
            with pytest.raises(ConnectionResetError):
                await relay.athrow(ConnectionResetError())
        else:
            del stream
        if how != "forget":
            assert [data async for data in relay] == []
        del relay
        gc.collect()
        await left_nothing()

    async def test_cancelled_while_waiting(self, hostile, session, left_nothing):
        """While the reader's task waits for data."""
        reached = asyncio.Event()
        hostile.plays([SSE, piece(STORY[0]), sets(reached), STALL])
        stream = session.chat.stream(**CHAT, serialize=True)
        seen = []

        async def read():
            async for data in stream.sse():
                seen.append(data)

        reader = asyncio.ensure_future(read())
        await reached.wait()
        await hostile.until(lambda: seen)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert seen == [STORY[0]]
        await left_nothing()

    async def test_cancelled_while_writing(self, hostile, session, left_nothing):
        """While the reader's task writes what came, and keeps the stream."""
        hostile.plays([SSE, piece(STORY[0]), STALL])
        stream = session.chat.stream(**CHAT)
        writing = asyncio.Event()

        async def read():
            async for _ in stream.sse():
                writing.set()
                await asyncio.Event().wait()

        reader = asyncio.ensure_future(read())
        await writing.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await left_nothing()

    async def test_error_of_the_reader(self, hostile, session, left_nothing):
        """By an error of the reader's own, as from a broken pipe."""
        hostile.plays([SSE, piece(STORY[0]), STALL])

        async def read():
            async for _ in session.chat.stream(**CHAT).sse(heartbeat=BEAT):
                raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await read()
        await left_nothing()

    async def test_while_opening(self, hostile, session, left_nothing):
        """While the request waits for the head of the answer."""
        hostile.plays([STALL])
        reader = asyncio.ensure_future(anext(session.chat.stream(**CHAT, serialize=True).sse()))
        await hostile.until(lambda: hostile.posts)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await left_nothing()

    async def test_after_the_end(self, hostile, session, held):
        """At the end marker the answer is whole already, and the connection is kept."""
        hostile.plays([streamed()], [answer()])
        stream = session.chat.stream(**CHAT)
        async with contextlib.aclosing(stream.sse()) as relay:
            async for data in relay:
                if data == DONE:
                    break
        assert (stream.done, held(session)) == (True, {})
        await session.chat.create(**CHAT)
        assert len(hostile.connections) == 1


async def test_session_closed_under_a_reader(hostile, session_for):
    """A session that is closed ends its relays with an error event."""
    session = session_for()
    hostile.plays([SSE, piece(STORY[0]), STALL])
    relay = session.chat.stream(**CHAT).sse(heartbeat=BEAT)
    await anext(relay)
    await anext(relay)
    await session.aclose()
    (event,) = SSEDecoder().feed(b"".join([data async for data in relay]))
    assert (event.event, "session was closed" in event.data) == ("error", True)


async def test_two_readers(hostile, session, left_nothing):
    """A stream that another task is reading is no stream to relay: an error of the code, not an event."""
    hostile.plays([SSE, STALL])
    stream = await session.chat.stream(**CHAT).open()
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(SessionError, match="another task"):
        await anext(stream.sse(heartbeat=BEAT))
    reader.cancel()
    await asyncio.wait((reader,))
    await left_nothing()


async def test_the_reader_holds_the_turn(hostile, session_for):
    """The task that reads a relay of a session context cannot wait for another call there."""
    session = session_for()
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = session.chat.stream(**CHAT, serialize=True)
    await asyncio.ensure_future(stream.open())
    async with contextlib.aclosing(stream.sse()) as relay:
        await anext(relay)
        with pytest.raises(ContextBusyError):
            async with asyncio.timeout(5):
                await session.chat.create(**CHAT, serialize=True)


async def test_no_read_ahead(hostile, session):
    """A relay reads no faster than its reader: the service is held back while the reader does not come back."""
    flood = piece(chunk("x" * 60_000))
    sent = []

    async def count(_):
        sent.append(1)

    hostile.plays([SSE, *[step for _ in range(400) for step in (flood, count)], STALL])
    relay = session.chat.stream(**CHAT).sse(heartbeat=BEAT)
    await anext(relay)
    seen = -1
    while seen != len(sent):  # until the sockets between are full
        seen = len(sent)
        for _ in range(200):
            await asyncio.sleep(0)
    assert seen < 400
    await relay.aclose()


def test_what_a_stream_must_offer():
    """A class that lacks a part of a stream cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        StreamedAnswer()
