"""Headers and status of what comes back."""

import gc
import pickle
import weakref

import aiohttp
import attrs
import pytest

from ctxcache import APIStatusError, AsyncSession, CtxCacheError, RateLimitError, Retry, StreamInterruptedError

from ..hostile import (
    CHAT,
    CLOSE,
    COMPLETION,
    CONTEXT,
    CREATE,
    END,
    SSE,
    STALL,
    STORY,
    answer,
    event,
    piece,
    streamed,
)
from .calling import failure, reachable, texts

LIMITS = ("X-RateLimit-Remaining-Requests: 98", "Set-Cookie: id=7", "Set-Cookie: b=8")


def sse(*lines):
    """The head of a stream, with further header lines."""
    return SSE.replace(b"\r\n", b"\r\n" + b"".join(line.encode() + b"\r\n" for line in lines), 1)


async def test_of_a_plain_answer(hostile, session):
    """A completion has the headers and the status of its response; neither counts in comparisons, repr or JSON."""
    hostile.plays([answer(COMPLETION, *LIMITS, status="201 Created")], [answer()])
    reply, other = [await session.chat.create(**CHAT) for _ in range(2)]
    assert reply.headers["x-ratelimit-remaining-requests"] == "98"
    assert (reply.status, other.status, reply.headers["SET-COOKIE"]) == (201, 200, "id=7, b=8")
    assert "x-ratelimit-remaining-requests" not in other.headers
    assert reply == other
    assert "ratelimit" not in f"{reply!r} {reply.to_json()}".lower()
    assert "id=7" not in repr(reply.headers)


async def test_of_a_context(hostile, session):
    """So has a context."""
    hostile.plays([answer(CONTEXT, "X-RateLimit-Remaining-Requests: 97")])
    context = await session.context.create(**CREATE)
    assert (context.status, context.headers["X-Ratelimit-Remaining-Requests"]) == (200, "97")


@pytest.mark.parametrize(
    "name", ["Accept", "accept-encoding", "Authorization", "content-type", "User-Agent", "X-Client-Request-Id", "X-New"]
)
@pytest.mark.parametrize("own_http", [False, True])
async def test_of_every_request(hostile, key, name, own_http):
    """The headers of a session go with creates, chats and streams, in place of those that the client sends itself."""
    hostile.plays([answer(CONTEXT)], [answer()], [streamed()])
    http = aiohttp.ClientSession() if own_http else None
    async with AsyncSession(key, hostile.url, headers={name: "text/mine"}, http=http) as session:
        await session.context.create(**CREATE)
        await session.chat.create(**CHAT)
        await session.chat.stream(**CHAT).finish()
    if http is not None:
        await http.close()
    assert [post.headers[name.lower()] for post in hostile.posts] == ["text/mine"] * 3


async def test_after_copying(hostile, session):
    """A pickled or evolved reply keeps headers and status."""
    hostile.plays([answer(COMPLETION, *LIMITS)])
    reply = await session.chat.create(**CHAT)
    for copied in (pickle.loads(pickle.dumps(reply)), attrs.evolve(reply, id="other")):
        assert (copied.status, copied.headers["x-ratelimit-remaining-requests"]) == (200, "98")


async def test_of_a_stream(hostile, session):
    """A stream has both from the head of the answer on, also after the end; so has the folded completion."""
    hostile.plays([sse(*LIMITS) + b"".join(map(piece, STORY)) + END])
    stream = session.chat.stream(**CHAT)
    assert (stream.headers, stream.status) == (None, None)
    await stream.open()
    assert (stream.headers["x-ratelimit-remaining-requests"], stream.status) == ("98", 200)
    assert stream.partial().status == 200
    await texts(stream)
    assert stream.headers["x-ratelimit-remaining-requests"] == "98"
    completion = stream.completion()
    assert (completion.status, completion.headers["x-ratelimit-remaining-requests"]) == (200, "98")


@pytest.mark.parametrize("stream", [False, True])
async def test_of_an_error(hostile, session_for, stream):
    """An error has the headers of the answer that made the error, in a pickle, too."""
    session = session_for(retry=Retry(attempts=2, first_delay=0.001))
    refusals = [
        answer(b"", f"X-RateLimit-Remaining-Requests: {left}", status="429 No", kind="text/plain") for left in (1, 0)
    ]
    hostile.plays(*[[refusal] for refusal in refusals])
    error = await failure(session.chat.stream(**CHAT).open() if stream else session.chat.create(**CHAT))
    assert isinstance(error, RateLimitError)
    for kept in (error, pickle.loads(pickle.dumps(error))):
        assert (kept.headers["x-ratelimit-remaining-requests"], kept.status) == ("0", 429)


async def test_of_an_error_event(hostile, session):
    """An error event has the headers of the stream; the status is that of the same error outside a stream."""
    hostile.plays([sse(*LIMITS), piece(STORY[0]), piece(event({"error": {"code": "RateLimitExceeded"}})), STALL])
    error = await failure(texts(session.chat.stream(**CHAT)))
    assert (error.status, error.headers["x-ratelimit-remaining-requests"], error.partial.status) == (429, "98", 200)


async def test_of_a_call_that_got_no_answer(hostile, session):
    """Without an answer to the last attempt there are no headers, not even those of an earlier attempt."""
    hostile.plays([answer(b"", *LIMITS, status="429 No", kind="text/plain")], [CLOSE])
    error = await failure(session.chat.create(**CHAT))
    assert not isinstance(error, APIStatusError)
    assert not hasattr(error, "headers")
    assert APIStatusError("by hand").headers == {}


@pytest.mark.parametrize("end", ["answer", "error", "interrupted"])
async def test_secrets_that_are_echoed(hostile, session, key, end):
    """The key, and a call's own secret headers on errors, are in no header that the server echoes them in."""
    cookie = "id=QWERTZUIOP-asdfghjkl"
    echo = (f"X-Echo: Bearer {key}", f"X-Other: {cookie}")
    scripts = {
        "answer": [answer(COMPLETION, *echo)],
        "error": [answer(b"{}", *echo, status="400 No")],
        "interrupted": [sse(*echo), piece(STORY[0]), piece(event({"error": {"code": "X"}})), STALL],
    }
    hostile.plays(scripts[end])
    headers = {"Cookie": cookie}
    if end == "answer":
        reply = await session.chat.create(**CHAT, extra_headers=headers)
        assert reply.headers["x-echo"] == "Bearer …"
        assert key.encode() not in pickle.dumps(reply)
        return
    call = session.chat.create if end == "error" else lambda **chat: texts(session.chat.stream(**chat))
    error = await failure(call(**CHAT, extra_headers=headers))
    assert (error.headers["x-echo"], error.headers["x-other"]) == ("Bearer …", "…")
    assert not any(secret.encode() in pickle.dumps(error) for secret in (key, cookie))


async def test_nothing_is_held(hostile, session):
    """A reply that is kept, its headers read or not, holds neither response nor connection."""
    hostile.plays([answer(COMPLETION, *LIMITS)], [streamed()])
    replies = [await session.chat.create(**CHAT)]
    stream = session.chat.stream(**CHAT)
    await texts(stream)
    replies.append(stream.completion())
    assert replies[0].headers["set-cookie"]
    del stream
    for reply in replies:
        kinds = {type(held) for held in reachable(reply.headers)}
        assert not kinds & {aiohttp.ClientResponse, aiohttp.TCPConnector, aiohttp.StreamReader, weakref.ref}
    gc.collect()
    assert [found for found in gc.get_objects() if type(found) is aiohttp.ClientResponse] == []


async def test_of_a_stream_that_broke(hostile, session):
    """The part of a stream that broke has the headers of the stream."""
    hostile.plays([sse(*LIMITS), piece(STORY[0]), CLOSE])
    error = await failure(texts(session.chat.stream(**CHAT)))
    assert isinstance(error, StreamInterruptedError)
    assert isinstance(error, CtxCacheError)
    assert error.partial.headers["x-ratelimit-remaining-requests"] == "98"
