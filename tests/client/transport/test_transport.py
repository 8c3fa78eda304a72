"""The transport against a hostile server: the pool, keep-alive, redirects, the caller's own session, closing."""

import asyncio
import gc
import socket

import aiohttp
import pytest

from ctxcache import (
    APITimeoutError,
    AsyncSession,
    Limits,
    OutcomeUnknownError,
    SessionError,
    StreamInterruptedError,
    Timeouts,
)

from ...hostile import (
    CHAT,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    Hostile,
    after,
    answer,
    piece,
    pieces,
    streamed,
)
from ..calling import OK, QUICK, failure, read


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


async def test_total_limit_before_anything_was_sent(hostile, session_for):
    """A total limit that passes while a call waits says that it did not run."""
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(total=0.05))
    hostile.plays([SSE, STALL])
    async with session.chat.stream(**CHAT, timeouts=Timeouts(total=None)):
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
    hostile.plays(*[OK] * 90)
    for number in range(90):
        await session.chat.create(**CHAT, timeouts=Timeouts(connect=10 + number))
    gc.collect()
    kept = [value for value in gc.get_objects() if isinstance(value, aiohttp.ClientTimeout) and value.sock_connect]
    assert len(kept) <= 64 + 1  # aiohttp's default is one of them


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


# --- our own sockets and heads ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the system has no TCP_KEEPIDLE")
async def test_keep_alive_probes(hostile, session):
    """The system asks a silent server after 60 s whether the connection still stands."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        gc.collect()
        (ours,) = (
            found
            for found in gc.get_objects()
            if isinstance(found, socket.socket) and found.fileno() >= 0 and peer(found) == ("127.0.0.1", hostile.port)
        )
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def peer(found):
    """The address a socket is connected to, or None."""
    try:
        return found.getpeername()
    except OSError:
        return None


@pytest.mark.parametrize("size", [9_000, 12_000, 60_000])
@pytest.mark.parametrize("stream", [False, True])
async def test_long_header_fields(hostile, session, size, stream):
    """An answer with a header field of up to 64 KB is read."""
    field = b"\r\nX-Policy: " + b"p" * size + b"\r\n"
    hostile.plays([(streamed() if stream else answer()).replace(b"\r\n", field, 1)])
    if stream:
        assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
    else:
        assert (await session.chat.create(**CHAT)).text == "Hi"
