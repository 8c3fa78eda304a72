"""Streams: the right text or an error of our family, and the connection given back, however a stream ends."""

import asyncio
import gc
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
    CtxCacheError,
    EventTooLargeError,
    InternalServerError,
    Limits,
    MalformedStreamError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    Retry,
    SessionError,
    StreamInterruptedError,
    Timeouts,
)

from ..hostile import (
    CHAT,
    CLOSE,
    DONE,
    END,
    RESET,
    SSE,
    SSE_TO_EOF,
    STALL,
    STORY,
    STORY_TEXT,
    after,
    answer,
    chunk,
    event,
    piece,
    pieces,
    refusal,
    sets,
    sleep,
    streamed,
    trickle,
)

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4}}
FINISHED = chunk("", finish="stop")


async def texts(stream):
    """All pieces of text that are not empty, one after the other."""
    return [text async for text in stream.text()]


async def collect(stream, seen, happened=None):
    """Read a stream, and add the text of each chunk to `seen`."""
    async for piece_of_it in stream:
        seen.append(piece_of_it.text)
        if happened is not None:
            happened.set()


async def broken(session, **options):
    """Read a stream to its error; return the error and the text of the chunks that came before it."""
    stream, seen = session.chat.stream(**CHAT, **options), []
    with pytest.raises(CtxCacheError) as caught:
        await collect(stream, seen)
    assert not stream.done
    return caught.value, "".join(seen)


# --- good ends --------------------------------------------------------------------------------------------------------


async def test_whole(hostile, session):
    """A stream yields its chunks as they came, and then is done, with usage, ids and the folded completion."""
    hostile.plays([streamed(*STORY[:3], event({"choices": [], "usage": USAGE}), DONE)])
    async with session.chat.stream(**CHAT) as stream:
        assert not stream.done
        assert [piece_of_it.text async for piece_of_it in stream] == ["Once", " upon", " a time", ""]
    assert stream.done
    assert stream.usage.cached_tokens == 4
    assert stream.usage.fresh_tokens == 5
    completion = stream.completion()
    assert (completion.text, completion.finish_reason, completion.id) == (STORY_TEXT, "stop", "c-1")
    assert completion.usage == stream.usage
    assert (stream.request_id, stream.log_id) == ("req-1", "log-1") == (completion.request_id, completion.log_id)
    assert stream.client_request_id == hostile.posts[0].headers["x-client-request-id"] == completion.client_request_id


async def test_bare_iteration(hostile, session, held):
    """A stream is opened by iterating it, and holds nothing when it was read to its end."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    assert hostile.posts == []
    assert await texts(stream) == ["Once", " upon", " a time"]
    assert held(session) == {}


async def test_created_stream(hostile, session):
    """`create(stream=True)` returns a stream whose head has come."""
    hostile.plays([streamed()])
    stream = await session.chat.create(**CHAT, stream=True)
    assert len(hostile.posts) == 1
    assert stream.request_id == "req-1"
    async with stream:
        assert "".join(await texts(stream)) == STORY_TEXT
    assert hostile.posts[0].json["stream"] is True
    assert hostile.posts[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_line_ends(hostile, session, line_end, size):
    """Every line ending the standard knows, cut anywhere, gives the same text, no code point cut."""
    body = b"\xef\xbb\xbf: hello\n\n" + b"".join([chunk("缓存 "), chunk("🙂\u2028"), *STORY[1:]])
    body = body.replace(b"\\u7f13\\u5b58", "缓存".encode()).replace(b"\n", line_end)
    hostile.plays([SSE, *pieces(*(body[at : at + size] for at in range(0, len(body), size))), END])
    assert "".join(await texts(session.chat.stream(**CHAT))) == "缓存 🙂\u2028 upon a time"


@pytest.mark.parametrize(
    "end",
    [
        [*pieces(*STORY), END],
        [*pieces(*STORY), RESET],
        [*pieces(*STORY), CLOSE],
        [*pieces(*STORY, b": bye\n\n"), CLOSE],
        [*pieces(*STORY, chunk("never")), END],
        [*pieces(*STORY, event({"error": {"code": "InternalServiceError"}})), END],
        [*pieces(*STORY[:3], event(b"[DONE] ")), END],
        [*pieces(*STORY[:3], event(b" [DONE]")), END],
        [*pieces(*STORY[:3], b"data:[DONE]\n\n"), END],
        [*pieces(*STORY[:3], b"data: [DONE]\n"), END],
        [*pieces(*STORY[:3], b"data: [DONE]"), END],
        [*pieces(*STORY[:3], b"event: done\nid: 7\ndata: [DONE]\n\n"), END],
        [*pieces(*STORY[:3]), END],
        [*pieces(*STORY[:3], b": bye\n\n"), END],
        [*pieces(*STORY[:2], DONE), END],
    ],
)
async def test_good_ends(hostile, session, end):
    """`[DONE]`, in whatever spelling, or a finish reason and a clean end make a whole answer, whatever follows."""
    hostile.plays([SSE, *end])
    stream = session.chat.stream(**CHAT)
    assert "".join(await texts(stream)) in (STORY_TEXT, "Once upon")
    assert stream.done
    assert stream.completion().text in (STORY_TEXT, "Once upon")


async def test_reset_with_the_last_bytes(hostile, session):
    """A reset that comes in the same moment as `[DONE]` does not spoil an answer that came whole."""
    hostile.plays([SSE + b"".join(pieces(*STORY)), RESET])
    stream = session.chat.stream(**CHAT)
    try:
        assert "".join(await texts(stream)) == STORY_TEXT
    except StreamInterruptedError as error:  # the kernel may throw away what it had received
        assert error.partial.text == ""
    else:
        assert stream.done


async def test_until_the_connection_ends(hostile, session):
    """A body without length or chunks, ended by the connection, is whole after `[DONE]`, or after a finish reason."""
    hostile.plays([SSE_TO_EOF, *STORY, CLOSE], [SSE_TO_EOF, *STORY[:3], CLOSE])
    for _ in range(2):
        stream = session.chat.stream(**CHAT)
        assert "".join(await texts(stream)) == STORY_TEXT
        assert stream.completion().finish_reason == "stop"


async def test_every_cut(hostile, session):
    """Wherever a body that ends with the connection is cut, it is the whole answer or an interrupted stream."""
    body = b"".join((chunk("Say [DONE]"), chunk(' "[DONE]', finish="stop"), DONE))
    finished = len(body) - len(DONE)
    for cut in range(len(body)):
        hostile.plays([SSE_TO_EOF, body[:cut], CLOSE])
        stream = session.chat.stream(**CHAT)
        try:
            text = "".join(await texts(stream))
        except StreamInterruptedError:
            assert 'Say [DONE] "[DONE]'.startswith(stream.partial().text)
            assert not stream.done
        else:
            assert (text, stream.completion().finish_reason) == ('Say [DONE] "[DONE]', "stop")
            assert cut >= finished, body[:cut]


async def test_one_connection_for_two_streams(hostile, session):
    """A stream that was read to its end gives its connection back to the pool."""
    hostile.plays([streamed()], [streamed()], [answer()])
    for _ in range(2):
        async with session.chat.stream(**CHAT) as stream:
            await texts(stream)
    await session.chat.create(**CHAT)
    assert len(hostile.connections) == 1


@pytest.mark.parametrize("late", [False, True])
async def test_break_at_the_last_chunk(hostile, session, late):
    """Who stops at the finish reason, `[DONE]` having come with it, keeps the connection, also if the end is late."""
    left = asyncio.Event()
    hostile.plays(*[[SSE + b"".join(pieces(*STORY)), after(left), END]] * 2)
    for _ in range(2):
        (left.clear if late else left.set)()
        async with session.chat.stream(**CHAT) as stream:
            async for piece_of_it in stream:
                if piece_of_it.choices[0].finish_reason:
                    break
            asyncio.get_running_loop().call_soon(left.set)
    assert len(hostile.connections) == 1


@pytest.mark.parametrize(
    "rest",
    [[STALL], [trickle([piece(b": a\n\n")] * 400)], [piece(b":" + b"x" * 65_000)] * 9 + [STALL]],
    ids=["stall", "trickle", "flood"],
)
async def test_bounded_drain(hostile, session, rest, held):
    """A server that does not end the body after `[DONE]` delays the caller for a moment, and loses its connection."""
    hostile.plays([SSE, *pieces(*STORY), *rest])
    async with asyncio.timeout(2):
        stream = session.chat.stream(**CHAT)
        assert "".join(await texts(stream)) == STORY_TEXT
    assert stream.done
    assert held(session) == {}
    await hostile.until(lambda: not hostile.open)


async def test_total_does_not_spoil_a_whole_answer(hostile, session_for):
    """When the total limit passes after `[DONE]`, before the end of the body, the answer is whole all the same."""
    hostile.plays([SSE, *pieces(*STORY), STALL])
    stream = session_for(timeouts=Timeouts(total=0.05)).chat.stream(**CHAT)
    assert "".join(await texts(stream)) == STORY_TEXT
    assert stream.done


# --- bad ends ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("last", [DONE, chunk(" time")])
async def test_chunks_nobody_read_yet_are_not_lost(hostile, session, monkeypatch, last):
    """Nor are those that had arrived, and waited for a slow reader, when broken framing ended the connection."""
    monkeypatch.setattr("ctxcache.client.transport.exchange._LOOK_SECONDS", 0.01)
    opened = asyncio.Event()
    hostile.plays([SSE, after(opened), b"".join(pieces(*STORY[:2], last)), sleep(0.01), b"zz\r\n", CLOSE])
    stream = await session.chat.stream(**CHAT).open()
    opened.set()
    await hostile.until(lambda: not hostile.open)
    await asyncio.sleep(0.05)
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
async def test_bad_chunked_encoding(hostile, session, data, monkeypatch):
    """Broken chunked encoding interrupts the stream; where it comes with the head, it is a `ProtocolError`."""
    monkeypatch.setattr("ctxcache.client.transport.exchange._LOOK_SECONDS", 0.01)
    read = asyncio.Event()
    hostile.plays([SSE, piece(chunk("Once")), after(read), data, CLOSE], [SSE + piece(chunk("Once")) + data, CLOSE])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    read.set()
    with pytest.raises(StreamInterruptedError):
        await anext(stream)
    error, text = await broken(session)
    assert isinstance(error, ProtocolError) or (isinstance(error, StreamInterruptedError) and text == "Once")


# --- what the fold makes of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [chunk("Hi"), FINISHED, event({"choices": [], "usage": USAGE}), DONE],
        [chunk("Hi"), chunk("", finish="stop", usage=USAGE), DONE],
        [chunk("Hi", usage=None), chunk(None, finish="stop", usage=USAGE)],
        [event({"usage": USAGE}), chunk("Hi"), FINISHED, DONE],
        [chunk("Hi", usage={"prompt_tokens": 1}), chunk("", finish="stop", usage=USAGE), DONE],
        [chunk("Hi"), event({"choices": None, "usage": USAGE}), FINISHED, DONE],
        [chunk("Hi"), FINISHED, event({"choices": [], "usage": {**USAGE, "prompt_tokens": "9", "new": {}}}), DONE],
    ],
)
async def test_usage_anywhere(hostile, session, events):
    """Usage is captured wherever the gateway puts it; the last one counts."""
    hostile.plays([streamed(*events)])
    stream = session.chat.stream(**CHAT)
    assert await texts(stream) == ["Hi"]
    assert (stream.usage.prompt_tokens, stream.usage.cached_tokens, stream.usage.total_tokens) == (9, 4, 12)


async def test_no_usage(hostile, session):
    """Without usage in the stream, `usage` is None."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    await texts(stream)
    assert stream.usage is None is stream.completion().usage


async def test_several_choices(hostile, session):
    """Interleaved choices fold by their index, each with its own finish reason; `text` is that of choice 0."""
    events = [chunk("b", index=1), chunk("a"), chunk("B", index=1), chunk("A", "stop"), chunk("", "length", index=1)]
    hostile.plays([streamed(*events)])
    stream = session.chat.stream(**CHAT, n=2)
    assert await texts(stream) == ["a", "A"]
    folded = stream.completion()
    assert [(c.index, c.message.content, c.finish_reason) for c in folded.choices] == [
        (0, "aA", "stop"),
        (1, "bB", "length"),
    ]


async def test_tool_calls_and_logprobs(hostile, session):
    """Fragments of tool calls fold by their index, log probabilities one after the other."""

    def delta(finish=None, logprobs=None, **fields):
        return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish, "logprobs": logprobs}]})

    def call(index, **fields):
        return {"index": index, **fields}

    first = {"id": "t0", "type": "function", "function": {"name": "look", "arguments": ""}}
    hostile.plays(
        [
            streamed(
                delta(role="assistant", content=None, reasoning_content="Hm"),
                delta(tool_calls=[call(0, **first)], logprobs={"content": [{"token": "a"}]}),
                delta(tool_calls=[call(0, function={"arguments": '{"a"'}), call(1, id="t1")], reasoning_content="m"),
                delta(tool_calls=[call(0, function={"arguments": ":1}"})], logprobs={"content": [{"token": "b"}]}),
                delta("tool_calls"),
            )
        ]
    )
    stream = session.chat.stream(**CHAT)
    assert await texts(stream) == []
    choice = stream.completion().choices[0]
    assert choice.message.tool_calls == (
        {"index": 0, "id": "t0", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
        {"index": 1, "id": "t1"},
    )
    assert (choice.message.content, choice.message.reasoning_content, choice.finish_reason) == (
        None,
        "Hmm",
        "tool_calls",
    )
    assert choice.logprobs == {"content": [{"token": "a"}, {"token": "b"}]}


async def test_unknown_fields(hostile, session):
    """What this version does not know can be read through `raw`."""
    hostile.plays([streamed(chunk("Hi", "stop", new={"a": [1]}), DONE)])
    async with session.chat.stream(**CHAT) as stream:
        chunks = [piece_of_it async for piece_of_it in stream]
    assert chunks[0].raw["new"] == {"a": [1]}


@pytest.mark.parametrize(
    "odd", [b'"\xff\xfe"', b"1" * 5000, b"[" * 500 + b"]" * 500, b'"\\ud800"', b"1e999"], ids=range(5)
)
async def test_odd_json_in_raw(hostile, session, odd):
    """What the JSON of a chunk that was accepted may hide raises an error of the family from `raw`, if any."""
    hostile.plays([streamed(event(b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],"x":%b}' % odd))])
    stream = session.chat.stream(**CHAT)
    try:
        async for piece_of_it in stream:
            assert piece_of_it.text == "Hi"
            assert piece_of_it.raw["choices"]
    except CtxCacheError:
        pass


@pytest.mark.parametrize("depth", [100, 400, 900])
@pytest.mark.parametrize("what", ["logprobs", "tool_calls", "x"])
async def test_deep_fields(hostile, session, depth, what):
    """Deep nesting ends in a completion or an error of the family, whichever way it is looked at."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    choice = {
        "logprobs": b'{"logprobs":%b,"finish_reason":"stop"}',
        "tool_calls": b'{"delta":{"tool_calls":[%b]},"finish_reason":"stop"}',
        "x": b'{"x":%b,"finish_reason":"stop"}',
    }[what]
    hostile.plays([streamed(event(b'{"choices":[%b]}' % (choice % deep)))])
    stream = session.chat.stream(**CHAT)
    try:
        async for piece_of_it in stream:
            assert piece_of_it.raw["choices"]
        assert stream.completion().finish_reason == "stop"
    except CtxCacheError as error:
        assert isinstance(error, ProtocolError)


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


# --- leaving ----------------------------------------------------------------------------------------------------------


async def closed_and_usable(hostile, session, held):
    """The connection is closed, nothing is held, and a following call works."""
    await hostile.until(lambda: not hostile.open)
    assert held(session) == {}
    hostile.plays([answer()])
    assert (await session.chat.create(**CHAT)).text == "Hi"


@pytest.fixture
def session(session_for):
    """Here, a session of one connection: a leak shows as a call that finds none."""
    return session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=1, head=5, idle=5))


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
    assert type(error) is OutcomeUnknownError
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
        assert held(session) == {"turns": 1, "exchanges": 1, "slots": 1}
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


# --- misuse -----------------------------------------------------------------------------------------------------------


async def test_two_readers(hostile, session):
    """A second task that reads the same stream gets a `SessionError`; the first goes on."""
    more = asyncio.Event()
    hostile.plays([SSE, piece(STORY[0]), after(more), *pieces(*STORY[1:]), END])
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(SessionError, match="another task"):
        await anext(stream)
    more.set()
    assert (await first).text == " upon"
    assert await texts(stream) == [" a time"]


async def test_two_openers(hostile, session):
    """A stream is opened once: a second task that tries meanwhile gets a `SessionError`."""
    opened = asyncio.Event()
    hostile.plays([after(opened), streamed()])
    stream = session.chat.stream(**CHAT)
    first = asyncio.ensure_future(stream.open())
    await hostile.until(lambda: hostile.posts)
    with pytest.raises(SessionError):
        await stream.open()
    opened.set()
    await first
    assert await stream.open() is stream
    await texts(stream)
    assert len(hostile.posts) == 1


async def test_iterate_after_the_end(hostile, session):
    """A stream that is at its end stays there."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    await texts(stream)
    assert await texts(stream) == []
    assert len(hostile.posts) == 1


async def test_iterate_after_an_error(hostile, session):
    """A stream that failed fails again, and in the same way."""
    hostile.plays([streamed(chunk("Once"))])
    stream = session.chat.stream(**CHAT)
    for _ in range(2):
        with pytest.raises(StreamInterruptedError) as caught:
            await texts(stream)
        assert caught.value.partial.text == "Once"
    assert len(hostile.posts) == 1


async def test_iterate_after_a_failed_opening(hostile, session):
    """A stream that could not be opened does not send its request a second time."""
    hostile.plays([CLOSE])
    stream = session.chat.stream(**CHAT)
    for _ in range(2):
        with pytest.raises(CtxCacheError):
            await texts(stream)
    assert len(hostile.posts) == 1


async def test_use_after_aclose(hostile, session):
    """A stream closed before it was opened sends nothing."""
    stream = session.chat.stream(**CHAT)
    await stream.aclose()
    with pytest.raises(SessionError):
        await anext(stream)
    with pytest.raises(SessionError):
        await stream.open()
    assert hostile.posts == []


async def test_completion_before_the_end(hostile, session):
    """Half an answer is no answer: `completion()` raises before the end, with what came so far."""
    hostile.plays([streamed()])
    stream = session.chat.stream(**CHAT)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.completion()
    assert caught.value.partial.choices == ()
    await anext(stream)
    with pytest.raises(StreamInterruptedError):
        stream.completion()
    await texts(stream)
    assert stream.completion().text == STORY_TEXT


async def test_ids_before_opening(session):
    """Before a stream is opened it has no ids."""
    stream = session.chat.stream(**CHAT)
    assert (stream.request_id, stream.log_id, stream.client_request_id) == (None, None, None)
    assert not stream.done
    await stream.aclose()


async def test_timeout_of_the_caller(hostile, session, held):
    """`asyncio.timeout` around the reading leaves nothing behind."""
    hostile.plays([SSE, piece(STORY[0]), STALL])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), session.chat.stream(**CHAT) as stream:
            await texts(stream)
    await closed_and_usable(hostile, session, held)


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
