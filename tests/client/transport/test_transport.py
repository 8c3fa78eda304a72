"""The transport against a hostile server: time limits, the pool, stale connections, lost replies, and the key kept."""

import asyncio
import gzip
import inspect
import pickle
import socket
import ssl
import traceback
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions

from ctxcache import (
    APIConnectionError,
    APITimeoutError,
    AsyncSession,
    BadRequestError,
    CtxCacheError,
    InvalidInputError,
    Limits,
    OutcomeUnknownError,
    ProtocolError,
    QuotaExceededError,
    Retry,
    SessionError,
    StreamInterruptedError,
    Timeouts,
)

from ...hostile import (
    CHAT,
    CLOSE,
    COMPLETION,
    CONTEXT,
    CREATE,
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
    early,
    event,
    head,
    piece,
    pieces,
    streamed,
    trickle,
)

QUICK = Retry(first_delay=0.001)
OK = [answer()]


async def failure(call):
    """Await a call that must fail; return its error. The key is in no local variable of this frame."""
    try:
        await call
    except CtxCacheError as error:
        return error
    raise AssertionError("it did not fail")


async def read(stream):
    """Read a stream to its end."""
    return "".join([piece_of_it.text async for piece_of_it in stream])


# --- time limits ------------------------------------------------------------------------------------------------------


async def test_connect_limit(hostile):
    """A connection that is not made, TLS included, within `Timeouts.connect` is tried again: nothing was sent."""
    hostile.greets(*[[STALL]] * 3)
    url = hostile.url.replace("http:", "https:")
    async with AsyncSession("k", url, timeouts=Timeouts(connect=0.05), retry=QUICK) as session:
        error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APITimeoutError)
    assert (error.limit, error.seconds, error.sent, error.attempts) == ("connect", 0.05, False, 3)
    assert len(hostile.connections) == 3


async def test_pool_limit(hostile, session_for):
    """Who waits longer than `Timeouts.pool` for a free connection gets an `APITimeoutError`; nothing was sent."""
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=0.05))
    hostile.plays([SSE, *pieces(STORY[0]), STALL], OK)
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APITimeoutError)
    assert (error.limit, error.sent, len(hostile.posts)) == ("pool", False, 1)
    assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_within_the_pool_limit(hostile, session_for):
    """Who gets a connection within `Timeouts.pool` is served."""
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=5))
    hostile.plays([SSE, *pieces(STORY[0]), STALL], OK)
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(session.chat.create(**CHAT))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
    assert (await waiting).text == "Hi"
    assert len(hostile.posts) == 2


async def test_pool_of_an_own_session(hostile, session_for):
    """The pool of the caller's own `ClientSession` is waited for no longer than the limits say."""
    hostile.plays([SSE, *pieces(STORY[0]), STALL], OK)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        session = session_for(http=http, timeouts=Timeouts(pool=0.05, connect=0.05))
        async with session.chat.stream(**CHAT) as stream:
            await anext(stream)
            error = await failure(session.chat.create(**CHAT))
        assert isinstance(error, APITimeoutError)
        assert not error.sent
        assert (await session.chat.create(**CHAT)).text == "Hi"
        await session.aclose()


@pytest.mark.parametrize("connections", [1, 3])
async def test_pool_size(hostile, session_for, connections):
    """No more than `Limits.connections` calls are under way at once; the others wait, and are served."""
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * 8)
    session = session_for(limits=Limits(connections=connections))
    calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(8)]
    await hostile.until(lambda: len(hostile.posts) == connections)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(hostile.posts) == len(hostile.connections) == connections
    go.set()
    assert [reply.text for reply in await asyncio.gather(*calls)] == ["Hi"] * 8
    assert len(hostile.connections) == connections


async def test_no_pool_limit(hostile, session_for):
    """0 connections: no limit."""
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * 150)
    session = session_for(limits=Limits(connections=0))
    calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(150)]
    await hostile.until(lambda: len(hostile.posts) == 150)
    go.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("script", [[STALL], [trickle(answer())], [trickle(b"HTTP/1.1 103 Early\r\n\r\n" * 99, 0.001)]])
async def test_head_limit(hostile, session_for, script):
    """An answer whose head has not come within `Timeouts.head`, however it trickles, has an unknown outcome."""
    hostile.plays(script)
    session = session_for(timeouts=Timeouts(head=0.05))
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, OutcomeUnknownError)
    assert isinstance(error.cause, APITimeoutError)
    assert (error.cause.limit, error.cause.sent, len(hostile.posts)) == ("head", True, 1)
    await hostile.until(lambda: not hostile.open)


async def test_head_limit_of_a_create(hostile, session_for):
    """A create whose answer does not come is repeated, and at last an `APITimeoutError`: it is harmless."""
    hostile.plays([STALL], [STALL], [STALL])
    error = await failure(session_for(timeouts=Timeouts(head=0.03)).context.create(**CREATE))
    assert type(error) is APITimeoutError
    assert (error.limit, error.attempts, len(hostile.posts)) == ("head", 3, 3)


async def test_head_limit_counts_from_the_request(hostile, session_for):
    """`Timeouts.head` begins when the request leaves, not while it waits for a connection."""
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(head=0.1))
    hostile.plays([SSE, *pieces(STORY[0]), STALL], OK)
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    waiting = asyncio.ensure_future(session.chat.create(**CHAT))
    await asyncio.sleep(0.12)
    await stream.aclose()
    assert (await waiting).text == "Hi"


@pytest.mark.parametrize(
    "noise", [[piece(b": keep-alive\n\n")], [piece(b"\n")], [piece(b"event: ping\n\n")], [*piece(b":" + b"x" * 4000)]]
)
async def test_comments_do_not_count(hostile, session_for, noise):
    """Comments, and events without data, do not reset `Timeouts.idle`."""
    hostile.plays(
        [SSE, piece(STORY[0]), trickle([n if isinstance(n, bytes) else bytes([n]) for n in noise] * 900, 0.004)]
    )
    stream = session_for(timeouts=Timeouts(idle=0.08)).chat.stream(**CHAT)
    async with asyncio.timeout(2):
        error = await failure(read(stream))
    assert isinstance(error, StreamInterruptedError)
    assert error.cause.limit == "idle"
    assert error.partial.text == "Once"
    await hostile.until(lambda: not hostile.open)


async def test_data_counts(hostile, session_for):
    """Data events do reset `Timeouts.idle`: a slow stream is no broken one."""
    hostile.plays([SSE, trickle(pieces(*[STORY[0]] * 15, *STORY[2:]), 0.01), END])
    stream = session_for(timeouts=Timeouts(idle=0.1)).chat.stream(**CHAT)
    assert await read(stream) == "Once" * 15 + " a time"


async def test_slow_consumers_do_not_count(hostile, session_for):
    """The time a caller takes between two chunks is none of the server's."""
    more = asyncio.Event()
    hostile.plays([SSE, piece(STORY[0]), after(more), *pieces(*STORY[1:]), END])
    stream = session_for(timeouts=Timeouts(idle=0.03)).chat.stream(**CHAT)
    await anext(stream)
    await asyncio.sleep(0.1)
    asyncio.get_running_loop().call_soon(more.set)
    assert await read(stream) == " upon a time"


@pytest.mark.parametrize("rest", [STALL, trickle(b" " * 400, 0.02)])
async def test_idle_body(hostile, session_for, rest):
    """The body of a plain answer that stalls for `Timeouts.idle` has an unknown outcome; one that trickles has not."""
    hostile.plays([answer()[:-1], STALL], [answer()[:-20], trickle(answer()[-20:], 0.01)])
    session = session_for(timeouts=Timeouts(idle=0.08))
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, OutcomeUnknownError)
    assert error.cause.limit == "idle"
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.posts) == 2


@pytest.mark.parametrize(
    ("script", "stream", "kind"),
    [
        ([STALL], False, OutcomeUnknownError),
        ([STALL], True, OutcomeUnknownError),
        ([answer()[:-1], STALL], False, OutcomeUnknownError),
        ([answer()[:-9], trickle(b"x" * 999, 0.01)], False, OutcomeUnknownError),
        ([SSE, piece(STORY[0]), STALL], True, StreamInterruptedError),
        ([SSE, trickle(pieces(*[STORY[0]] * 999), 0.01)], True, StreamInterruptedError),
        ([SSE, trickle(pieces(*[b":\n\n"] * 999), 0.01)], True, StreamInterruptedError),
    ],
)
async def test_total_limit(hostile, session_for, script, stream, kind):
    """`Timeouts.total` ends a call wherever it is; the error says whether it may have run."""
    hostile.plays(script)
    session = session_for(timeouts=Timeouts(total=0.08, idle=None, head=None))
    call = read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT)
    async with asyncio.timeout(2):
        error = await failure(call)
    assert type(error) is kind
    assert isinstance(error.cause, APITimeoutError)
    assert (error.cause.limit, error.cause.seconds, error.cause.sent) == ("total", 0.08, True)
    assert len(hostile.posts) == 1
    await hostile.until(lambda: not hostile.open)


async def test_total_limit_covers_what_nobody_reads(hostile, session_for):
    """`Timeouts.total` also ends a stream that was opened and is not being read."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = await session_for(timeouts=Timeouts(total=0.05)).chat.stream(**CHAT).open()
    await hostile.until(lambda: not hostile.open)
    error = await failure(anext(stream))
    assert error.cause.limit == "total"


async def test_total_limit_before_anything_was_sent(hostile, session_for):
    """A total limit that passes while a call waits says that it did not run."""
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(total=0.05))
    hostile.plays([SSE, STALL])
    async with session.chat.stream(**CHAT, timeouts=Timeouts()):
        error = await failure(session.chat.create(**CHAT))
    assert type(error) is APITimeoutError
    assert (error.limit, error.sent, len(hostile.posts)) == ("total", False, 1)


async def test_timeouts_of_a_call(hostile, session_for):
    """The limits given with a call win over the session's."""
    hostile.plays([STALL])
    error = await failure(session_for().chat.create(**CHAT, timeouts=Timeouts(head=0.02)))
    assert error.cause.seconds == 0.02


async def test_many_timeouts(hostile, session_for):
    """Limits made anew for each call do not pile up."""
    session = session_for()
    hostile.plays(*[OK] * 70)
    for number in range(70):
        await session.chat.create(**CHAT, timeouts=Timeouts(head=10 + number))
    assert len(session._calls._transport._aiohttp_timeouts) <= 64


# --- stale and broken connections -------------------------------------------------------------------------------------


async def idle_connection(hostile, session):
    """Make one call whose connection goes back to the pool; return the server's end of it."""
    hostile.plays([answer()])
    await session.chat.create(**CHAT)
    return hostile.connections[-1]


async def test_keep_alive(hostile, session):
    """A connection is used again."""
    hostile.plays(*[OK] * 3)
    for _ in range(3):
        await session.chat.create(**CHAT)
    assert len(hostile.connections) == 1


async def test_no_keep_alive(hostile, session_for):
    """`Limits.keepalive=0` makes a connection a call."""
    session = session_for(limits=Limits(keepalive=0))
    hostile.plays(*[OK] * 3)
    for _ in range(3):
        await session.chat.create(**CHAT)
    assert len(hostile.connections) == 3


async def test_closed_while_idle(hostile, session):
    """A kept-alive connection that the server closed, as load balancers do, is noticed: one POST, on a new one."""
    connection = await idle_connection(hostile, session)
    connection.writer.close()
    await connection.writer.wait_closed()  # then the kernel has said so; until then nobody can know
    hostile.plays(OK)
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert (len(hostile.posts), hostile.fragments) == (2, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("idle", [1, 3, 10])
async def test_closed_at_the_last_moment(hostile, session, idle, stream):
    """A close that had reached the kernel and not yet the event loop is noticed as well: never is a turn sent twice."""
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * idle)
    calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(idle)]
    await hostile.until(lambda: len(hostile.posts) == idle)
    go.set()
    await asyncio.gather(*calls)
    hostile.plays([streamed()] if stream else OK)
    for connection in hostile.connections:
        connection.writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # takes effect before this line ends
    if stream:
        assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
    else:
        assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.posts) == idle + 1


async def test_no_way_to_ask_the_kernel(hostile, session, monkeypatch):
    """Without `select.poll`, what the event loop knows of a connection counts; what it missed is no second turn."""
    monkeypatch.delattr("select.poll")
    connection = await idle_connection(hostile, session)
    hostile.plays(OK, OK)
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.connections) == 1
    connection.writer.close()
    await connection.writer.wait_closed()
    for _ in range(20):  # until the loop has heard of it
        await asyncio.sleep(0)
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert (len(hostile.connections), len(hostile.posts)) == (2, 3)
    hostile.connections[1].writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    assert isinstance(await failure(session.chat.create(**CHAT)), OutcomeUnknownError)
    assert (len(hostile.connections), len(hostile.posts)) == (2, 3)


async def test_no_telling(hostile, session, monkeypatch):
    """A connection of which no look tells whether it is still good is used, once, after a few looks."""
    looks = []
    monkeypatch.setattr("ctxcache.client.transport.body._is_stale", lambda *_: looks.append(1))
    await idle_connection(hostile, session)
    looks.clear()
    hostile.plays([CLOSE])
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, OutcomeUnknownError)  # the request was sent
    assert (len(hostile.connections), len(hostile.posts), len(looks)) == (1, 2, 4)


@pytest.mark.parametrize("junk", [answer({"choices": "not asked for"}), b"HTTP/1.1 408 Timeout\r\n\r\n", b"x", b"\r\n"])
@pytest.mark.parametrize("late", [False, True])
async def test_unasked_answer(hostile, session, junk, late):
    """What a server says on an idle connection is never taken for the answer to the next request."""
    connection = await idle_connection(hostile, session)
    connection.writer.get_extra_info("socket")._sock.send(junk)
    if late:
        for _ in range(20):
            await asyncio.sleep(0)
    hostile.plays(OK, OK)
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.posts) == 2


async def test_second_answer_in_one_go(hostile, session):
    """Two answers to one request: the second is not taken for the answer to the next."""
    second = answer({"choices": [{"message": {"content": "wrong"}}]})
    hostile.plays([answer() + second], OK, [answer(), second], OK)
    for _ in range(4):
        assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.posts) == 4


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("start", [b"", b"H", head("Content-Length: 10"), answer()[:-1]])
@pytest.mark.parametrize("reused", [False, True])
async def test_lost_reply(hostile, session, start, end, reused):
    """A chat whose reply is lost, wholly or in part, is not repeated: `OutcomeUnknownError`, one POST."""
    if reused:
        await idle_connection(hostile, session)
    hostile.plays([start, end])
    before = len(hostile.posts)
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, OutcomeUnknownError)
    assert "may have" in str(error) or isinstance(error, ProtocolError)
    assert (error.attempts, len(hostile.posts) - before) == (1, 1)
    assert error.client_request_id == hostile.posts[-1].headers["x-client-request-id"]


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("start", [b"", answer()[:-1]])
@pytest.mark.parametrize("reused", [False, True])
async def test_lost_reply_where_harmless(hostile, session, start, end, reused):
    """A lost reply is asked for again for a create, and for a chat that is `repeatable`: with the same request id."""
    if reused:
        await idle_connection(hostile, session)
    hostile.plays([start, end], [start, end], [answer(CONTEXT)], [start, end], OK)
    assert (await session.context.create(**CREATE)).id == "ctx-1"
    assert (await session.chat.create(**CHAT, repeatable=True)).text == "Hi"
    ids = [post.headers["x-client-request-id"] for post in hostile.posts[reused:]]
    assert len(ids) == 5
    assert len(set(ids[:3])) == len(set(ids[3:])) == 1


async def test_lost_replies_to_the_end(hostile, session):
    """Where every attempt's reply is lost and repeating is harmless, the error is an `APIConnectionError`."""
    hostile.plays(*[[CLOSE]] * 3)
    error = await failure(session.context.create(**CREATE))
    assert type(error) is APIConnectionError
    assert (error.sent, error.attempts, len(hostile.posts)) == (True, 3, 3)


async def test_lost_stream_head(hostile, session):
    """A stream whose head is lost is not asked for again, unless it is `repeatable`."""
    hostile.plays([CLOSE], [CLOSE], [streamed()])
    assert isinstance(await failure(read(session.chat.stream(**CHAT))), OutcomeUnknownError)
    assert len(hostile.posts) == 1
    assert await read(session.chat.stream(**CHAT, repeatable=True)) == STORY_TEXT
    assert len(hostile.posts) == 3


async def test_one_end(hostile, session):
    """An exchange ends once: closing or failing it again gives nothing back twice, and spoils no answer."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    assert await read(stream) == STORY_TEXT
    ends = []
    stream._exchange.on_close = ends.append
    stream._exchange.fail(SessionError("too late"))
    stream._exchange.close()
    assert ends == []
    assert await read(stream) == ""
    assert stream.completion().text == STORY_TEXT


async def test_closed_before_reading(hostile, session):
    """A server that closes each new connection at once: no POST too many, an error of the family."""
    hostile.greets(*[[CLOSE]] * 20)
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APIConnectionError | OutcomeUnknownError)
    assert hostile.posts == []


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_early_answer(hostile, session, size):
    """An answer that comes before the request was read is the answer."""
    hostile.plays([early, answer(b"", status="413 Too Large"), STALL])
    big = {**CHAT, "messages": [{"role": "user", "content": "x" * size}]}
    error = await failure(session.chat.create(**big))
    assert isinstance(error, BadRequestError)
    assert error.status == 413


async def test_closed_in_the_middle_of_a_large_request(hostile, session):
    """A connection that breaks while the request is being sent has an unknown outcome, and is not tried again."""
    hostile.plays([early, RESET])
    big = {**CHAT, "messages": [{"role": "user", "content": "x" * 20_000_000}]}
    error = await failure(session.chat.create(**big))
    assert isinstance(error, OutcomeUnknownError)
    assert (len(hostile.posts), len(hostile.heads)) == (0, 1)


async def test_large_request(hostile, session):
    """A large request arrives whole."""
    hostile.plays(OK)
    big = {**CHAT, "messages": [{"role": "user", "content": "x" * 5_000_000}]}
    assert (await session.chat.create(**big)).text == "Hi"
    assert hostile.posts[0].json["messages"] == big["messages"]


async def test_nobody_there(session_for):
    """A refused connection is tried again, and then an `APIConnectionError` that says nothing was sent."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        session = session_for(SimpleNamespace(url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
        error = await failure(session.chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert (error.sent, error.attempts) == (False, 3)


async def test_no_such_host(session_for):
    """A host that does not exist is an `APIConnectionError`."""
    error = await failure(session_for(SimpleNamespace(url="http://nowhere.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 xxx OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/7.5 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n",
        b"\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 9\r\n\r\nnot flat!",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 9\r\n\r\nnot broti",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxx",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\nhello",
    ],
    ids=lambda garbage: repr(garbage[:60]),
)
@pytest.mark.parametrize("stream", [False, True])
async def test_garbage(hostile, session, garbage, stream):
    """What is no answer leaves the outcome unknown, is not asked for again, and its connection is not used again."""
    hostile.plays([garbage, CLOSE], OK)
    call = read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT)
    error = await failure(call)
    assert isinstance(error, OutcomeUnknownError | StreamInterruptedError)
    assert len(hostile.posts) == 1
    assert (await session.chat.create(**CHAT)).text == "Hi"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"<html>",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'"x"',
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":7}',
        b'{"choices":[7]}',
        b'{"choices":[{"message":"x"}]}',
        b"1" * 10_000,
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_not_the_promised_json(hostile, session, body):
    """An answer with status 200 that is no completion is a `ProtocolError`, with the beginning of what it was."""
    hostile.plays([answer(body)])
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, ProtocolError)
    assert error.body == body[:2000].decode("utf-8", "replace")
    assert len(hostile.posts) == 1
    assert pickle.loads(pickle.dumps(error)).body == error.body


async def test_interim_answers(hostile, session):
    """1xx heads before the answer are passed over."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    hostile.plays([interim, answer()], [interim + streamed()])
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert await read(session.chat.stream(**CHAT)) == STORY_TEXT


async def test_gzip(hostile, session):
    """A compressed answer, which was not asked for, is read all the same."""
    plain, stream = answer().partition(b"\r\n\r\n")[2], b"".join(STORY)
    hostile.plays(
        [answer(gzip.compress(plain), "Content-Encoding: gzip")],
        [answer(gzip.compress(stream), "Content-Encoding: gzip", kind="text/event-stream")],
    )
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
    assert hostile.posts[0].headers["accept-encoding"] == "identity"


async def test_trickled_answer(hostile, session):
    """An answer that comes byte by byte is the same answer."""
    hostile.plays([trickle(answer(), 0)], [trickle(streamed(), 0)])
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert await read(session.chat.stream(**CHAT)) == STORY_TEXT


WHOLE = answer(b"x" * 2000)


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        head("Content-Length: 99999999999") + b"x" * 2000,
        head("Transfer-Encoding: chunked") + piece(b"x" * 2000),
        answer(gzip.compress(b"x" * 5_000_000), "Content-Encoding: gzip"),
    ],
    ids=["length", "promised", "chunked", "bomb"],
)
async def test_too_large_body(hostile, session_for, body):
    """A body past `Limits.body_bytes` is a `ProtocolError`, and is not read on."""
    hostile.plays([body, STALL])
    error = await failure(session_for(limits=Limits(body_bytes=1000)).chat.create(**CHAT))
    assert isinstance(error, ProtocolError)
    assert len(hostile.posts) == 1
    if body is not WHOLE:  # what came whole costs no connection
        await hostile.until(lambda: not hostile.open)


async def test_too_large_error_body(hostile, session_for):
    """An error whose body is too large is still that error."""
    hostile.plays([answer(b"x" * 2000, status="402 Pay"), STALL])
    error = await failure(session_for(limits=Limits(body_bytes=1000)).chat.create(**CHAT))
    assert isinstance(error, QuotaExceededError)


@pytest.mark.parametrize("script", [[answer(b"{}", status="401 No")[:-1], CLOSE], [head(status="401 No"), CLOSE]])
async def test_cut_error_body(hostile, session, script):
    """An error whose body is cut off is still that error."""
    hostile.plays(script)
    assert (await failure(session.chat.create(**CHAT))).status == 401


# --- where requests go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects(hostile, session, status):
    """A redirect is an error: the key does not travel."""
    async with Hostile() as other:
        for location in (f"{other.url}/elsewhere", "/v1/elsewhere"):
            hostile.plays([answer(b"", f"Location: {location}", status=f"{status} Moved")])
            error = await failure(session.chat.create(**CHAT))
            assert error.status == status
            assert "redirect" in error.message
        assert (len(other.connections), len(hostile.posts)) == (0, 2)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_proxy(hostile, session_for, monkeypatch, name, scheme):
    """The proxy of the environment gets the requests, for a host that only it knows."""
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{hostile.port}")
    hostile.plays([answer()], [streamed()])
    session = session_for(SimpleNamespace(url="http://api.invalid/v1"))
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
    assert {post.target for post in hostile.posts} == {"http://api.invalid/v1/context/chat/completions"}
    assert hostile.posts[0].headers["host"] == "api.invalid"


async def test_proxy_credentials(hostile, session_for, monkeypatch):
    """The user of a proxy URL is sent to the proxy."""
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{hostile.port}")
    hostile.plays([answer()])
    await session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT)
    assert hostile.posts[0].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.com,127.0.0.1", "*", "127.0.0.1:{port}"])
async def test_no_proxy(hostile, session_for, monkeypatch, no_proxy):
    """`NO_PROXY` names hosts that are asked directly."""
    async with Hostile() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=hostile.port))
        hostile.plays([answer()])
        await session_for().chat.create(**CHAT)
        assert (len(proxy.connections), hostile.posts[0].target) == (0, "/v1/context/chat/completions")


async def test_no_proxy_for_others(hostile, session_for, monkeypatch):
    """`NO_PROXY` for one host leaves the proxy for the others."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    monkeypatch.setenv("NO_PROXY", "example.com")
    hostile.plays([answer()])
    await session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT)


async def test_https_proxy(hostile, session_for, monkeypatch):
    """An https URL is tunnelled: the proxy is asked to connect, gets no key, and its refusal is a failed connection."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{hostile.port}")
    hostile.plays(*[[answer(b"", status="407 Who are you?"), CLOSE]] * 3)
    error = await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert [(r.method, r.target) for r in hostile.posts] == [("CONNECT", "api.invalid:443")] * 3
    assert not any("authorization" in r.headers for r in hostile.posts)


async def test_http_proxy_is_not_for_https(hostile, session_for, monkeypatch):
    """`HTTP_PROXY` is for http URLs only."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert hostile.connections == []


async def test_proxy_that_is_down(hostile, session_for, monkeypatch):
    """A proxy that is not there is a failed connection, without its credentials in the text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}")
        error = await failure(session_for().chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert "secret" not in everything(error)
    assert hostile.connections == []


async def test_unusable_proxy(session_for, monkeypatch):
    """A proxy of a kind aiohttp does not speak is named before anything is sent, without its credentials."""
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:1")
    error = await failure(session_for().chat.create(**CHAT))
    assert isinstance(error, InvalidInputError)
    assert error.field == "proxy"
    assert "secret" not in f"{error!r} {vars(error)}"


# --- the caller's own session -----------------------------------------------------------------------------------------


async def test_own_session(hostile, session_for):
    """The caller's own `ClientSession` is used, and closed by the caller."""
    hostile.plays([answer()], [SSE, piece(STORY[0]), STALL])
    async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as http:
        async with session_for(http=http) as session:
            await session.chat.create(**CHAT)
            stream = session.chat.stream(**CHAT)
            await anext(stream)
            reader = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
        assert isinstance(await failure(reader), StreamInterruptedError)
        assert not http.closed
    assert [post.headers["x-mine"] for post in hostile.posts] == ["1", "1"]


async def test_head_limit_behind_slow_traces(hostile, session_for):
    """A call whose connection came free before a trace of the caller's own session had ended keeps its head limit."""

    async def slowly(*_):
        await asyncio.sleep(0.03)

    traces = aiohttp.TraceConfig()
    traces.on_request_end.append(slowly)
    hostile.plays([answer()], [STALL])
    async with aiohttp.ClientSession(trace_configs=[traces], connector=aiohttp.TCPConnector(limit=1)) as http:
        session = session_for(http=http, timeouts=Timeouts(head=0.2, total=5))
        first, second = (asyncio.create_task(session.chat.create(**CHAT)) for _ in range(2))
        await first
        error = await failure(second)
    assert (error.cause.limit, len(hostile.posts), len(hostile.connections)) == ("head", 2, 1)


async def test_own_session_is_closed(hostile, session_for):
    """A call through a `ClientSession` that its owner closed is a `SessionError`."""
    http = aiohttp.ClientSession()
    session = session_for(http=http)
    await http.close()
    assert isinstance(await failure(session.chat.create(**CHAT)), SessionError)


async def test_own_session_with_settings_of_its_own(hostile, session_for):
    """Time-outs and `raise_for_status` of the caller's own `ClientSession` do not apply."""
    hostile.plays([answer(b"", status="401 No")])
    timeout = aiohttp.ClientTimeout(total=0.000_001)
    async with aiohttp.ClientSession(raise_for_status=True, timeout=timeout) as http:
        assert (await failure(session_for(http=http).chat.create(**CHAT))).status == 401
    assert len(hostile.posts) == 1


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_close_while_waiting_for_the_head(hostile, session_for, own, stream):
    """`session.aclose()` gives a call that waits for its answer's head an error at once."""
    hostile.plays([STALL])
    http = aiohttp.ClientSession() if own else None
    session = session_for(http=http)
    call = asyncio.ensure_future(session.chat.stream(**CHAT).open() if stream else session.chat.create(**CHAT))
    await hostile.until(lambda: hostile.posts)
    await session.aclose()
    async with asyncio.timeout(1):
        error = await failure(call)
    if http is not None:
        await http.close()
    assert isinstance(error, OutcomeUnknownError)
    assert len(hostile.posts) == 1


async def test_close_while_waiting_for_a_connection(hostile, session_for):
    """`session.aclose()` gives calls that wait for a connection a `SessionError`."""
    hostile.plays([SSE, STALL])
    session = session_for(limits=Limits(connections=1))
    async with session.chat.stream(**CHAT):
        calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(3)]
        await asyncio.sleep(0)
        await session.aclose()
        for call in calls:
            assert isinstance(await failure(call), SessionError)
    assert len(hostile.posts) == 1


# --- TLS --------------------------------------------------------------------------------------------------------------

PEM = Path(__file__).with_name("tls.pem")


@pytest.fixture
async def secure(quiet_loop):
    """A hostile server behind TLS, with a certificate nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with Hostile(ssl=context) as server:
        yield server


async def test_bad_certificate(secure, session_for):
    """A certificate that cannot be verified is an `APIConnectionError` at once: trying again does not help."""
    error = await failure(session_for(secure).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert (error.hopeless, error.sent, error.attempts) == (True, False, 1)
    assert secure.posts == []


async def test_plain_server_behind_https(hostile, session_for):
    """A server that does not speak TLS is an `APIConnectionError` at once."""
    hostile.greets([b"HTTP/1.1 400 Bad\r\n\r\n"])
    error = await failure(session_for(SimpleNamespace(url=hostile.url.replace("http", "https"))).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert error.hopeless


@pytest.mark.parametrize("polite", [False, True])
async def test_tls_connections(secure, session_for, polite):
    """Over TLS too, a connection is used again, and one that the server closed is replaced: one POST each."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=PEM))
    async with aiohttp.ClientSession(connector=connector) as http:
        session = session_for(secure, http=http)
        secure.plays(OK, [streamed()], OK, OK)
        await session.chat.create(**CHAT)
        assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
        assert len(secure.connections) == 1
        if polite:
            secure.connections[0].writer.close()  # says so in TLS, and keeps the TCP connection until we do, too
        else:
            secure.connections[0].writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        assert (await session.chat.create(**CHAT)).text == "Hi"
        assert len(secure.posts) == 3


# --- every exception of aiohttp ---------------------------------------------------------------------------------------


def instance(kind):
    """Make an exception, of whatever signature."""
    info = SimpleNamespace(real_url="http://x/", method="POST", headers={}, url="http://x/")
    place = SimpleNamespace(host="x", port=1, ssl=True, is_ssl=True)
    os_error = OSError(111, "refused")
    for arguments in [
        (place, os_error),
        ("/s", place, os_error),
        (info, ()),
        ("x", "y", "z", 1),
        ("x",),
        ("x", "y", 1),
        (),
    ]:
        try:
            error = kind(*arguments)
            str(error), repr(error)
        except Exception:  # not this signature
            continue
        return error
    raise AssertionError(f"no way to make a {kind}")


FOREIGN = sorted(
    {
        kind
        for module in (client_exceptions, http_exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
        and kind.__module__.startswith("aiohttp")
        # About redirects that are not followed and web sockets that are not opened:
        and kind is not client_exceptions.WSMessageTypeError
    },
    key=lambda kind: kind.__name__,
)
STANDARD = [
    OSError(5, "x"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(110, "x"),
    TimeoutError(),
    EOFError(),
]
STANDARD += [
    asyncio.IncompleteReadError(b"", 1),
    ssl.SSLError(1, "x"),
    RuntimeError("x"),
    ValueError("x"),
    UnicodeError(),
]


def test_the_walk_finds_them():
    """The walk over aiohttp's exceptions finds them all."""
    names = {kind.__name__ for kind in FOREIGN}
    assert {"ClientError", "ServerDisconnectedError", "ClientPayloadError", "LineTooLong", "InvalidURL"} <= names
    assert len(names) > 35


@pytest.mark.parametrize("error", [*map(instance, FOREIGN), *STANDARD], ids=lambda error: type(error).__name__)
async def test_every_exception(hostile, session_for, error):
    """Whatever aiohttp raises while sending or reading becomes an error of ours, with nothing of aiohttp's on it."""

    async def post(*_, **__):
        raise error

    session = session_for(http=SimpleNamespace(closed=False, post=post), retry=Retry(attempts=1))
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = session_for().chat.stream(**CHAT)
    await anext(stream)
    stream._exchange._content.set_exception(error)
    for call in (session.chat.create(**CHAT), read(session.chat.stream(**CHAT)), anext(stream)):
        found = await failure(call)
        assert isinstance(found, CtxCacheError)
        while found is not None:  # the whole chain
            assert isinstance(found, CtxCacheError)
            found = found.__cause__ or found.__context__


# --- the key ----------------------------------------------------------------------------------------------------------


def everything(error):
    """All that can be seen of an error: its texts, its data, its chain, its traceback with local variables."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    parts = ["".join(shown.format()), repr(error), str(error), repr(error.args), repr(pickle.dumps(error))]
    while error is not None:
        parts.append(repr(vars(error)))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


KEY = b"Bearer %KEY%"
ECHOES = {
    "message": [answer({"error": {"message": "you sent Bearer %KEY%"}}, status="401 No")],
    "fields": [
        answer({"error": {"code": "%KEY%", "type": "%KEY%", "param": "%KEY%", "x": ["%KEY%"]}}, status="400 No")
    ],
    "text": [answer(KEY, status="500 No", kind="text/plain")],
    "html": [answer(b"<pre>" + KEY, status="403 No", kind="text/html")],
    "good status": [answer({"error": {"message": "%KEY%"}})],
    "not json": [answer(KEY)],
    "not a completion": [answer({"choices": "%KEY%"})],
    "odd number": [answer({**COMPLETION, "created": "%KEY%"})],
    "odd choices": [answer({"choices": [{"index": "%KEY%", "message": "%KEY%"}]})],
    "request id": [answer({"error": {"message": "Request id: %KEY%"}}, "X-Request-Id: %KEY%", status="400 No")],
    "log id": [answer({"error": {}}, "X-Tt-Logid: %KEY%", status="400 No")],
    "status line": [b"HTTP/1.1 " + KEY + b"\r\n\r\n", CLOSE],
    "reason": [b"HTTP/1.1 400 " + KEY + b"\r\nContent-Length: 0\r\n\r\n"],
    "garbage": [KEY + b"\r\n\r\n", CLOSE],
    "header": [b"HTTP/1.1 200 OK\r\n" + KEY + b"\r\n\r\n", CLOSE],
    "length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + KEY + b"\r\n\r\n", CLOSE],
    "long line": [b"HTTP/1.1 200 OK\r\nX: " + KEY * 9000 + b"\r\n\r\n", CLOSE],
    "type": [answer(b"x", kind="%KEY%")],
    "redirect": [answer(b"", "Location: http://%KEY%/", status="302 Found")],
    "encoding": [answer(KEY, "Content-Encoding: gzip")],
    "chunk": [SSE, piece(STORY[0]), KEY + b"\r\n", CLOSE],
    "error event": [streamed(STORY[0], event({"error": {"message": "%KEY%", "code": "%KEY%"}}))],
    "named event": [streamed(STORY[0], event(KEY, "event: error"))],
    "event": [streamed(STORY[0], event(KEY))],
    "odd event": [streamed(STORY[0], event({"choices": [{"index": "%KEY%"}]}))],
    "html stream": [answer(KEY, kind="text/html")],
}
ECHOES |= {f"cut {at}": [answer(b"x" * at + KEY, status="400 No")] for at in (470, 475, 480)}
ECHOES |= {f"cut {at}": [answer(b"x" * at + KEY)] for at in (1970, 1975, 1980)}
ECHOES |= {f"cut event {at}": [streamed(event(b"x" * at + KEY))] for at in (1970, 1980)}


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("stream", [False, True])
async def test_echoed_key(hostile, session, key, caplog, name, stream):
    """A server that echoes the key cannot make it show: not in an error, its data, chain, traceback, pickle or log."""
    caplog.set_level("DEBUG")
    hostile.plays(*[[s.replace(b"%KEY%", key.encode()) if isinstance(s, bytes) else s for s in ECHOES[name]]] * 3)
    error = await failure(read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT))
    assert isinstance(error, CtxCacheError)
    seen = everything(error) + caplog.text
    for start in range(len(key) - 11):  # nor half of it
        assert key[start : start + 12] not in seen


@pytest.mark.parametrize(
    "script", [[CLOSE], [RESET], [STALL], [b"garbage\r\n\r\n", CLOSE], [answer(b"{}", status="400 No")], [SSE, CLOSE]]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_key_in_tracebacks(hostile, session_for, key, caplog, script, stream):
    """No error's traceback shows the key, though local variables be shown."""
    caplog.set_level("DEBUG")
    hostile.plays(script)
    session = session_for(timeouts=Timeouts(head=0.05))
    error = await failure(read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT))
    assert key not in everything(error) + caplog.text
    assert key not in repr(session) + repr(vars(session)) + repr(vars(session._calls)) + repr(
        vars(session._calls._transport)
    )


async def test_key_of_a_refused_connection(session_for, key):
    """Nor does that of a connection that could not be made."""
    error = await failure(session_for(SimpleNamespace(url="http://nowhere.invalid/v1")).chat.create(**CHAT))
    assert key not in everything(error)


async def test_sessions_and_streams_do_not_pickle_the_key(hostile, session, key):
    """A session does not pickle, since its key would travel; neither does a stream."""
    for thing in (session, session.chat, session.chat.stream(**CHAT), session._key):
        with pytest.raises(Exception, match=r"pickle|cannot") as caught:
            pickle.dumps(thing)
        assert key not in str(caught.value)


async def test_finish_reason_then_silence(hostile, session_for):
    """A stream that stalls before its end is interrupted by the idle limit; the partial has it all."""
    hostile.plays([SSE, *pieces(*STORY[:3]), STALL])
    error = await failure(read(session_for(timeouts=Timeouts(idle=0.05)).chat.stream(**CHAT)))
    assert isinstance(error, StreamInterruptedError)
    assert (error.partial.text, error.partial.finish_reason) == (STORY_TEXT, "stop")


async def test_ten_thousand_events_in_one_read(hostile, session):
    """A burst of events arrives whole and in order."""
    hostile.plays(
        [SSE, piece(b"".join(chunk(f"{n} ") for n in range(10_000))), piece(chunk(finish="stop") + DONE), END]
    )
    assert await read(session.chat.stream(**CHAT)) == "".join(f"{n} " for n in range(10_000))
