"""How streams end early: an error of our family with what came, and the connection given back."""

import asyncio
import json
import pickle

import pytest

from ctxcache import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    EventTooLargeError,
    InternalServerError,
    Limits,
    MalformedStreamError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
    Timeouts,
)
from ctxcache.client.environment import Environment

from ..hostile import (
    CHAT,
    CLOSE,
    DONE,
    END,
    RESET,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    after,
    answer,
    chunk,
    event,
    piece,
    pieces,
    streamed,
    turns,
)
from .calling import Clock, broken, collect, texts

FINISHED = chunk("", finish="stop")


@pytest.fixture
def session(session_for):
    """Here, a session of one connection: a leak shows as a call that finds none."""
    return session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=1, head=5, idle=5))


@pytest.mark.parametrize("end", [END, CLOSE, RESET, piece(b"data: {"), piece(chunk(" upo")[:-9])])
async def test_interrupted(hostile, session, end, held):
    """A stream that ends before its end raises `StreamInterruptedError` with what came; it is never asked for again."""
    read = asyncio.Event()
    hostile.plays([SSE, piece(chunk("Once")), after(read), end, CLOSE])
    stream, seen = session.chat.stream(**CHAT), []
    with pytest.raises(StreamInterruptedError) as caught:
        await collect(stream, seen, read)
    error = caught.value
    assert (seen, error.partial.text, error.partial.finish_reason) == (["Once"], "Once", None)
    assert (error.request_id, error.log_id, error.attempts) == ("req-1", "log-1", 1)
    assert not isinstance(error, ProtocolError)
    assert len(hostile.posts) == 1
    assert not stream.done
    assert held(session) == {}
    assert pickle.loads(pickle.dumps(error)).partial == error.partial


async def test_interrupted_by_a_broken_connection(hostile, session):
    """The cause of an interruption is an `APIConnectionError` where the connection broke, None where it just ended."""
    hostile.plays([SSE, piece(chunk("Once")), CLOSE], [SSE, piece(chunk("Once")), END])
    error, text = await broken(session)
    assert text == "Once"
    assert isinstance(error.cause, APIConnectionError)
    assert error.cause.sent
    error, _ = await broken(session)
    assert error.cause is None


async def test_chunks_before_a_break_are_not_lost(hostile, session):
    """Chunks that had arrived when a connection broke are delivered before the error."""
    opened = asyncio.Event()
    hostile.plays([SSE, after(opened), b"".join(pieces(*STORY[:2])), CLOSE])
    stream = await session.chat.stream(**CHAT).open()
    opened.set()
    await hostile.until(lambda: not hostile.open)
    assert [(await anext(stream)).text for _ in range(2)] == ["Once", " upon"]
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert caught.value.partial.text == "Once upon"


@pytest.mark.parametrize("total", [None, 9], ids=["unwatched", "watched"])
@pytest.mark.parametrize("last", [DONE, chunk(" time")], ids=["whole", "cut"])
async def test_chunks_nobody_read_yet_are_not_lost(hostile, session_for, last, total):
    """Nor are those that had arrived, and waited for a slow reader, when broken framing ended the connection."""
    clock, opened = Clock(), asyncio.Event()
    hostile.plays([SSE, after(opened), b"".join(pieces(*STORY[:2], last)), turns(20), b"zz\r\n", CLOSE])
    session = session_for(environment=Environment(clock=clock, look=0.001), timeouts=Timeouts(total=total))
    stream = await session.chat.stream(**CHAT).open()
    opened.set()
    await hostile.until(lambda: not hostile.open)
    if total:  # then the connection is looked at also while nobody reads
        await clock.pass_time(hostile, 1)
    assert [(await anext(stream)).text for _ in range(2)] == ["Once", " upon"]
    if last is DONE:
        assert await texts(stream) == []
    else:
        assert (await anext(stream)).text == " time"
        with pytest.raises(StreamInterruptedError):
            await anext(stream)


@pytest.mark.parametrize("finish", [None, ""])
async def test_no_finish_reason(hostile, session, finish):
    """A clean end without a finish reason is an interruption; an empty finish reason is none."""
    hostile.plays([streamed(chunk("Once", finish=finish))])
    error, _ = await broken(session)
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize("two", [{"n": 2}, {"extra_body": {"n": 2}}, {"n": 1, "extra_body": {"n": 2}}])
async def test_a_choice_without_finish(hostile, session, two):
    """With n = 2, one finish reason is not enough for a clean end, nor is one choice that never came; both are."""
    first, second = chunk("B", finish="stop"), chunk("", finish="length", index=1)
    hostile.plays([streamed(chunk("A", index=1), first)], [streamed(first)], [streamed(first, second)])
    for choices in (2, 1):
        error, _ = await broken(session, **two)
        assert isinstance(error, StreamInterruptedError)
        assert len(error.partial.choices) == choices
    stream = session.chat.stream(**CHAT, **two)
    assert await texts(stream) == ["B"]
    assert [choice.finish_reason for choice in stream.completion().choices] == ["stop", "length"]
    assert [post.json["n"] for post in hostile.posts] == [2, 2, 2]


async def test_one_choice_after_all(hostile, session):
    """What `extra_body` says of n wins: with 1, one finish reason is enough."""
    hostile.plays([streamed(FINISHED)])
    stream = session.chat.stream(**CHAT, n=2, extra_body={"n": 1})
    assert await texts(stream) == []
    assert stream.done


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{}}",
        b"hello",
        b"null",
        b"7",
        b"true",
        b'"text"',
        b"[]",
        b"[1]",
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices":' + b"[" * 100_000,
        b'{"choices":7}',
        b'{"choices":[7]}',
        b'{"choices":["x"]}',
        b'{"choices":[{"index":"x"}]}',
        b'{"choices":[{"delta":"x"}]}',
        b'{"choices":[{"index":1e999}]}',
        b"1" * 10_000,
        b'{"choices":[{"index":' + b"1" * 10_000 + b"}]}",
    ],
    ids=lambda data: data[:30].decode("latin-1"),
)
async def test_not_a_chunk(hostile, session, data, held):
    """An event that is no chunk is a `MalformedStreamError`, with what came before it and the beginning of it."""
    hostile.plays([streamed(chunk("Once"), event(data), *STORY[1:])])
    error, text = await broken(session)
    assert isinstance(error, MalformedStreamError)
    assert isinstance(error, StreamInterruptedError)
    assert isinstance(error, ProtocolError)
    assert text == "Once" == error.partial.text
    assert error.body == data[:2000].decode("utf-8", "replace")
    assert held(session) == {}
    assert len(hostile.posts) == 1
    pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("rest", [b"x" * 5000 + b"\n\n", b"x" * 500])
async def test_too_large_event(hostile, session_for, rest):
    """An event past `Limits.event_bytes` is a `MalformedStreamError` at once, by a cause that says so."""
    hostile.plays([SSE, *pieces(chunk("Once"), b"data: " + rest), STALL])
    error, text = await broken(session_for(limits=Limits(event_bytes=200)))
    assert isinstance(error, MalformedStreamError)
    assert isinstance(error.cause, EventTooLargeError)
    assert text == "Once" == error.partial.text


async def test_too_large_after_the_end(hostile, session_for):
    """What comes after `[DONE]`, in the same read even, spoils nothing, however large it is."""
    hostile.plays([SSE + piece(b"".join(STORY) + b"data: " + b"x" * 500), END])
    stream = session_for(limits=Limits(event_bytes=200)).chat.stream(**CHAT)
    assert "".join(await texts(stream)) == STORY_TEXT
    assert stream.completion().finish_reason == "stop"


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        ({"error": {"code": "ServerOverloaded", "message": "busy"}}, RateLimitError, 429),
        ({"error": {"code": "QuotaExceeded"}}, QuotaExceededError, 429),
        ({"error": {"code": "InternalServiceError", "message": "oops"}}, InternalServerError, 500),
        ({"error": {"code": "AuthenticationError"}}, AuthenticationError, 401),
        ({"error": {"code": "AccessDenied"}}, PermissionDeniedError, 403),
        ({"error": {"code": "ModelNotOpen"}}, NotFoundError, 404),
        ({"error": {"code": "NotFound.context_id"}}, ContextGoneError, 404),
        ({"error": {"code": "OperationDenied.InvalidState"}}, ContextBusyError, 403),
        ({"error": {"code": "OutputTextSensitiveContentDetected"}}, BadRequestError, 400),
        ({"error": {"code": 429}}, RateLimitError, 429),
        ({"error": {"code": "401"}}, AuthenticationError, 401),
        ({"error": {"status": 404}}, NotFoundError, 404),
        ({"error": "the model fell over"}, InternalServerError, 500),
        ({"error": {"message": "the model fell over"}}, InternalServerError, 500),
        ({"error": ["odd"]}, InternalServerError, 500),
        ({"error": True}, InternalServerError, 500),
        ({"error": {"code": None, "message": None, "type": None, "param": None, "x": 1}}, InternalServerError, 500),
        ({"id": "c", "choices": [], "error": {"code": "ServerOverloaded"}}, RateLimitError, 429),
        ({"error": {"message": "The context ctx-1 has expired"}}, ContextGoneError, 404),
    ],
    ids=str,
)
async def test_error_event(hostile, session, data, kind, status, held):
    """An error event raises the class of the same error by status, with what came before, and the ids of the stream."""
    hostile.plays([streamed(chunk("Once"), event(data), *STORY[1:])])
    error, text = await broken(session)
    assert type(error) is kind
    assert error.status == status
    assert text == "Once" == error.partial.text
    assert (error.request_id, error.log_id) == ("req-1", "log-1")
    assert error.client_request_id == hostile.posts[0].headers["x-client-request-id"]
    assert error.body == data
    assert len(hostile.posts) == 1
    assert held(session) == {}
    assert pickle.loads(pickle.dumps(error)).partial == error.partial


@pytest.mark.parametrize("data", [b'{"error":{"code":"ServerOverloaded"}}', b'{"code":"ServerOverloaded"}'])
async def test_named_error_event(hostile, session, data):
    """An event of type `error` is an error in whatever envelope, text included."""
    hostile.plays([streamed(chunk("Once"), event(data, "event: error"))])
    error, _ = await broken(session)
    assert type(error) is RateLimitError
    hostile.plays([streamed(chunk("Once"), event(b"the model fell over", "event: error"))])
    error, _ = await broken(session)
    assert type(error) is InternalServerError
    assert "the model fell over" in str(error)


async def test_null_error(hostile, session):
    """Chunks that carry `"error": null`, and texts that speak of errors, are no errors."""
    hostile.plays([streamed(chunk('an "error" {"error":1}', error=None), chunk(finish="stop"), DONE)])
    assert await texts(session.chat.stream(**CHAT)) == ['an "error" {"error":1}']


async def test_error_event_first(hostile, session):
    """An error event where the first chunk was promised is raised from iterating, and not retried."""
    hostile.plays([streamed(event({"error": {"code": "ServerOverloaded"}}))])
    error, text = await broken(session)
    assert type(error) is RateLimitError
    assert (text, error.partial.choices) == ("", ())
    assert len(hostile.posts) == 1


@pytest.mark.parametrize(
    ("body", "kind"), [(b"<html>Welcome to nginx!</html>", "text/html; charset=utf-8"), (b"{}", "application/json")]
)
async def test_no_event_stream(hostile, session, body, kind):
    """HTML or JSON where a stream was promised is a `ProtocolError` from opening it, with the beginning of the body."""
    hostile.plays([answer(body, "X-Request-Id: req-2", kind=kind)])
    with pytest.raises(ProtocolError, match="text/event-stream") as caught:
        await session.chat.stream(**CHAT).open()
    assert caught.value.body == body.decode()
    assert caught.value.request_id == "req-2"
    assert len(hostile.posts) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_error_instead_of_stream(hostile, session, kind):
    """An error envelope with status 200, where a stream was promised, raises the class of that error."""
    hostile.plays([answer({"error": {"code": "AuthenticationError", "message": "who?"}}, kind=kind)])
    with pytest.raises(AuthenticationError, match="who"):
        await session.chat.stream(**CHAT).open()


@pytest.mark.parametrize(
    "body", [b"", b"hello\n", b"\x00\xff" * 500, b'{"choices":[]}', b"<html>", b"HTTP/1.1 200 OK\r\n\r\n"]
)
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/octet-stream"])
async def test_no_events(hostile, session, body, kind):
    """A body without one event, whatever its type, is an interrupted stream."""
    hostile.plays([answer(body, kind=kind)])
    error, _ = await broken(session)
    assert isinstance(error, StreamInterruptedError | ProtocolError)


async def test_stream_without_content_type(hostile, session):
    """A stream whose content type is missing or wrong is read all the same."""
    hostile.plays([answer(b"".join(STORY), kind="text/plain")], [b"HTTP/1.1 200 OK\r\n\r\n", *STORY, CLOSE])
    for _ in range(2):
        assert "".join(await texts(session.chat.stream(**CHAT))) == STORY_TEXT


@pytest.mark.parametrize("data", [b"zz\r\n", b"-5\r\n", b"5\r\nabc", b"5\r\nabcdefgh\r\n", b"ffffffffffffffffff\r\n"])
async def test_bad_chunked_encoding(hostile, session_for, data):
    """Broken chunked encoding interrupts the stream; where it comes with the head, it is a `ProtocolError`."""
    session = session_for(environment=Environment(look=0.001))
    read = asyncio.Event()
    hostile.plays([SSE, piece(chunk("Once")), after(read), data, CLOSE], [SSE + piece(chunk("Once")) + data, CLOSE])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    read.set()
    with pytest.raises(StreamInterruptedError):
        await anext(stream)
    error, text = await broken(session)
    assert isinstance(error, ProtocolError) or (isinstance(error, StreamInterruptedError) and text == "Once")


@pytest.mark.parametrize("depth", [100, 450, 490, 900])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("form", ["event", "answer"])
async def test_deep_errors(hostile, session, depth, opening, closing, form):
    """So does deep nesting in an error, which can be pickled besides."""
    body = b'{"error":{"code":"ServerOverloaded","x":%b}}' % (opening * depth + b"1" + closing * depth)
    hostile.plays(*[[streamed(event(body))] if form == "event" else [answer(body, status="400 No")]] * 3)
    stream = session.chat.stream(**CHAT)
    with pytest.raises((RateLimitError, ProtocolError)) as caught:
        await texts(stream)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


async def test_status_before_the_stream(hostile, session):
    """An error status of a streamed call raises its class from opening, and has no partial."""
    body = json.dumps({"error": {"code": "InvalidParameter", "message": "bad"}}).encode()
    hostile.plays([answer(body, status="400 Bad Request")])
    with pytest.raises(BadRequestError) as caught:
        await session.chat.create(**CHAT, stream=True)
    assert isinstance(caught.value, APIStatusError)
    assert caught.value.partial is None


async def test_idle(hostile, session_for):
    """A stream in which no data event comes for `Timeouts.idle` is interrupted by an `APITimeoutError`."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    error, text = await broken(session_for(timeouts=Timeouts(idle=0.05)))
    assert isinstance(error, StreamInterruptedError)
    assert isinstance(error.cause, APITimeoutError)
    assert (error.cause.limit, error.cause.seconds, text) == ("idle", 0.05, "Once")


@pytest.mark.parametrize(
    "endless",
    [[chunk("word ")], [event({"choices": [], "new": "x" * 900})], [b": comment\n\n"], [b"\n"]],
    ids=["chunks", "unknown", "comments", "blank lines"],
)
async def test_too_large_answer(hostile, session_for, endless, held):
    """A stream past `Limits.answer_bytes` in sum is a `MalformedStreamError` with what came; it is not read on."""
    session = session_for(limits=Limits(answer_bytes=20_000))
    hostile.plays([SSE, piece(chunk("Once ")), *pieces(*endless * 20_000), END])
    error, text = await broken(session)
    assert isinstance(error, MalformedStreamError)
    assert "Limits.answer_bytes = 20,000" in error.message
    assert error.partial.text == text
    assert text.startswith("Once ")
    assert len(text) < 500_000
    assert held(session) == {}
    # What came whole costs no connection.
    await hostile.until(lambda: not hostile.open or hostile.connections[0].idle)


async def test_answer_within_the_limit(hostile, session_for):
    """`Limits.answer_bytes` is the size of the largest answer that is read."""
    body = b"".join(STORY)
    hostile.plays([streamed()], [streamed()])
    stream = session_for(limits=Limits(answer_bytes=len(body))).chat.stream(**CHAT)
    assert "".join(await texts(stream)) == STORY_TEXT
    error, _ = await broken(session_for(limits=Limits(answer_bytes=len(body) - 1)))
    assert isinstance(error, MalformedStreamError)
