"""A body is looked at before it is judged: a stream under another name, and what only looks like one."""

import pytest

from ctxcache import (
    AuthenticationError,
    CtxCacheError,
    InternalServerError,
    MalformedStreamError,
    ProtocolError,
    QuotaExceededError,
    StreamInterruptedError,
)

from ..hostile import CHAT, CLOSE, DONE, END, STORY, STORY_TEXT, answer, chunk, event, head, piece, pieces, streamed

GONE = {"error": {"message": "quota is gone", "code": "QuotaExceeded"}}


async def texts(stream):
    """The texts of a stream's chunks."""
    return [chunk.text async for chunk in stream]


async def failure(stream):
    """The error that reading a stream ends in, and the text before it."""
    found = []
    with pytest.raises(CtxCacheError) as caught:
        async for text in stream.text():
            found.append(text)
    return caught.value, "".join(found)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/html", "text/plain"])
@pytest.mark.parametrize("before", [b"", b"\n", b"\xef\xbb\xbf", b": hello\n\n"], ids=["bare", "gap", "bom", "comment"])
async def test_a_stream_by_another_name(hostile, session, kind, before):
    """A whole stream is read as a stream, whatever its Content-Type says, and its connection is kept."""
    hostile.plays([answer(before + b"".join(STORY), "X-Request-Id: r", kind=kind)], [streamed()])
    stream = session.chat.stream(**CHAT)
    assert "".join(await texts(stream)) == STORY_TEXT
    assert (stream.done, stream.request_id) == (True, "r")
    assert "".join(await texts(session.chat.stream(**CHAT))) == STORY_TEXT
    assert len(hostile.connections) == 1


async def test_a_live_stream_by_another_name(hostile, session):
    """Such a stream is delivered as it comes, not at its end; broken off, it is no whole answer."""
    declared = head("Content-Type: application/json", "Transfer-Encoding: chunked")
    hostile.plays([declared, *pieces(b"\n", chunk("Once"), chunk(" upon")), CLOSE])
    error, text = await failure(session.chat.stream(**CHAT))
    assert isinstance(error, StreamInterruptedError)
    assert text == error.partial.text == "Once upon"


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/event-stream", "text/plain"])
@pytest.mark.parametrize(
    "body", [GONE, [GONE], {"code": "QuotaExceeded", "msg": "quota is gone"}], ids=["own", "array", "msg"]
)
async def test_an_error_without_data(hostile, session, kind, body):
    """A bare JSON error is that error, whatever its Content-Type says."""
    hostile.plays([answer(body, kind=kind)])
    error, _ = await failure(session.chat.stream(**CHAT))
    assert type(error) is QuotaExceededError
    assert "quota is gone" in error.message
    assert len(hostile.posts) == 1


async def test_an_error_without_data_in_pieces(hostile, session):
    """So is one that comes in pieces, over several lines, with comments before it or not."""
    declared = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    hostile.plays(
        [declared, *pieces(b"\n", b'{"error":\n', b'{"code": "AuthenticationError",\n', b'"message": "who?"}}'), END]
    )
    error, _ = await failure(session.chat.stream(**CHAT))
    assert type(error) is AuthenticationError


@pytest.mark.parametrize("size", [100, 100_000])
async def test_json_that_is_no_error(hostile, session, size):
    """JSON that is neither a stream nor an error is a `MalformedStreamError`, however large."""
    hostile.plays([answer({"x": "y" * size}, kind="text/event-stream")])
    error, _ = await failure(session.chat.stream(**CHAT))
    assert isinstance(error, StreamInterruptedError)
    assert isinstance(error, MalformedStreamError) == (size < 8000)


@pytest.mark.parametrize(
    "events",
    [
        (DONE,),
        (event({"choices": [], "usage": {"total_tokens": 3}}), DONE),
        (event({"choices": [{"delta": {"role": "assistant"}}]}), DONE),
        (event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}), DONE),
        (event({"text": "hello"}), DONE),
        (event({"outputs": [{"text": "hello"}]}), DONE[:-1]),
        (event(b"ping"), DONE),
    ],
    ids=["done alone", "usage alone", "role alone", "empty text", "another shape", "no blank line", "ping"],
)
async def test_a_stream_without_an_answer(hostile, session, events):
    """An end marker without one choice that says anything is no success."""
    hostile.plays([streamed(*events)])
    stream = session.chat.stream(**CHAT)
    error, text = await failure(stream)
    assert isinstance(error, MalformedStreamError)
    assert (text, stream.done) == ("", False)
    with pytest.raises(StreamInterruptedError):
        stream.completion()


@pytest.mark.parametrize("finish", ["stop", "content_filter", "length"])
async def test_a_finish_reason_is_an_answer(hostile, session, finish):
    """A reply that ended without a text has ended all the same."""
    hostile.plays([streamed(chunk(None, finish), DONE)])
    stream = session.chat.stream(**CHAT)
    assert await texts(stream) == [""]
    assert stream.completion().finish_reason == finish


async def test_an_error_of_another_shape(hostile, session):
    """An object in place of a chunk that tells of a failure is the error, with its message and what came before."""
    hostile.plays([streamed(chunk(""), event({"text": "NETWORK ERROR", "error_code": 50004}), DONE)])
    error, _ = await failure(session.chat.stream(**CHAT))
    assert type(error) is InternalServerError
    assert "NETWORK ERROR" in error.message
    assert error.partial.choices[0].message.content == ""


async def test_heartbeats_between_chunks(hostile, session):
    """Heartbeats of every kind are passed over."""
    beats = event(b"ping", "event: ping"), event(b""), event(b"2026-01-01", "event: heartbeat"), event({"type": "ping"})
    hostile.plays([streamed(*[part for data in STORY for part in (*beats, data)])])
    assert "".join(await texts(session.chat.stream(**CHAT))) == STORY_TEXT


async def test_looking_gives_up_in_time(hostile, session_for):
    """White space without end, where JSON was declared, ends at the time limit, and leaks nothing."""
    from ctxcache import APITimeoutError, OutcomeUnknownError, Retry, Timeouts

    from ..hostile import STALL

    declared = head("Content-Type: application/json", "Transfer-Encoding: chunked")
    hostile.plays([declared, piece(b" \n"), STALL])
    session = session_for(timeouts=Timeouts(idle=0.05), retry=Retry(attempts=1))
    with pytest.raises(OutcomeUnknownError) as caught:
        await session.chat.stream(**CHAT).open()
    assert isinstance(caught.value.cause, APITimeoutError)


async def test_a_stream_in_answer_to_a_plain_call(hostile, session):
    """A whole stream that was not asked for is the answer all the same; half of it is none."""
    hostile.plays([streamed()], [streamed(*STORY[:2])])
    answered = await session.chat.create(**CHAT)
    assert (answered.text, answered.request_id) == (STORY_TEXT, "req-1")
    with pytest.raises(ProtocolError, match="not whole"):
        await session.chat.create(**CHAT)


@pytest.mark.parametrize("two", [{"n": 2}, {"extra_body": {"n": 2}}])
async def test_a_stream_of_too_few_replies_in_answer_to_a_plain_call(hostile, session, two):
    """One reply without an end marker, where two were asked for, is no whole answer."""
    hostile.plays([streamed(chunk("A", finish="stop"))])
    with pytest.raises(ProtocolError, match="not whole"):
        await session.chat.create(**CHAT, **two)
