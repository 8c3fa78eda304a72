"""Sending a request: stale connections are noticed, and a turn is never sent twice."""

import asyncio
import contextlib
import ssl
from types import SimpleNamespace

import aiohttp
import pytest

from ctxcache import (
    APIConnectionError,
    BadRequestError,
    OutcomeUnknownError,
    Retry,
)

from ...hostile import (
    CHAT,
    CLOSE,
    RESET,
    STALL,
    STORY_TEXT,
    after,
    answer,
    early,
    streamed,
)
from ..calling import OK, failure, idle_connection, read
from .certificate import PEM


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
        connection.shut_down()  # takes effect before this line ends
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
    hostile.connections[1].shut_down()
    error = await failure(session.chat.create(**CHAT))
    if isinstance(error, OutcomeUnknownError):
        assert (len(hostile.connections), len(hostile.posts)) == (2, 3)
    else:  # heard of in time, and sent once, on a new connection
        assert not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop), "asyncio's own loop hears later"
        assert (len(hostile.connections), len(hostile.posts), error.status) == (3, 4, 418)


async def test_no_telling(hostile, session, monkeypatch):
    """A connection of which no look tells whether it is still good is used, once, after a few looks."""
    looks = []
    monkeypatch.setattr("ctxcache.client.transport.body.is_stale", lambda *_: looks.append(1))
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
    with connection.raw_socket() as raw:
        raw.send(junk)
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
            secure.connections[0].shut_down()
        assert (await session.chat.create(**CHAT)).text == "Hi"
        assert len(secure.posts) == 3


async def test_an_answer_before_a_connection_is_found_stale(session_for):
    """An answer over a connection that then turns out to be stale answers nothing: the request goes out again."""
    response = SimpleNamespace(status=200, headers={}, content=None, closed=True, connection=None, close=lambda: None)
    told = []

    async def post(*_, data, **__):
        told.append(len(told))
        with contextlib.suppress(ConnectionResetError):
            await data.write(SimpleNamespace(transport=None, protocol=None))  # its connection is lost
        return response

    session = session_for(http=SimpleNamespace(closed=False, post=post), retry=Retry(attempts=1))
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APIConnectionError)
    assert (error.sent, len(told)) == (False, 4)
