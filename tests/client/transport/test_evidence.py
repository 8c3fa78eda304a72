"""Whether a request may have run: lost replies are repeated only where harmless."""

import socket
from types import SimpleNamespace

import pytest

from ctxcache import (
    APIConnectionError,
    OutcomeUnknownError,
    ProtocolError,
)

from ...hostile import (
    CHAT,
    CLOSE,
    CONTEXT,
    CREATE,
    RESET,
    STORY_TEXT,
    answer,
    head,
    streamed,
)
from ..calling import OK, failure, idle_connection, read


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


async def test_closed_before_reading(hostile, session):
    """A server that closes each new connection at once: no POST too many, an error of the family."""
    hostile.greets(*[[CLOSE]] * 20)
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APIConnectionError | OutcomeUnknownError)
    assert hostile.posts == []


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
