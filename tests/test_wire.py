"""The wire: which error an answer is, from every row of the service's table and every shape of envelope."""

import json

import pytest
from rich.pretty import pretty_repr

from ctxcache import (
    InternalServerError,
    InvalidInputError,
    ProtocolError,
    RateLimitError,
    user,
)
from ctxcache.models import ContextRequest
from ctxcache.wire import (
    check_headers,
    create_request,
    is_done,
    looks_like_events,
    prepare_chat,
    read_completion,
    read_context,
    read_events,
)


def envelope(**fields):
    """The service's error envelope."""
    return json.dumps({"error": fields}).encode()


# --- requests ---------------------------------------------------------------------------------------------------------


def test_requests():
    """A call becomes a path, a body, and what its life needs to know."""
    create = create_request(ContextRequest(model="m", messages=[user("x")]))
    assert (create.path, create.repeatable, create.stream, create.context_id) == ("/context/create", True, False, None)
    headers = {"x-a": "b"}
    prepared = prepare_chat(
        "m", (user("x"),), stream=True, repeatable=True, serialize=False, extra_headers=headers, options={}
    )
    request = prepared.on("c")
    assert (request.path, request.repeatable, request.stream) == ("/context/chat/completions", True, True)
    assert (request.context_id, request.serialize, request.headers) == ("c", False, {"X-A": "b"})
    assert json.loads(request.body) == {
        "context_id": "c",
        "messages": [{"role": "user", "content": "x"}],
        "model": "m",
        "stream": True,
    }
    plain = prepare_chat("m", (user("x"),), stream=False, options={}).on("c")
    assert not plain.stream
    assert json.loads(plain.body)["stream"] is False
    for shown in (
        repr(request),
        pretty_repr(request),
        repr(prepared),
        pretty_repr(prepared),
    ):  # as a traceback with local variables shows it, rich's too
        assert "x" not in shown.replace("context", "").replace("x_id", "")


def test_headers():
    """Headers are spelled in one way, whatever the caller's case, and checked."""
    assert check_headers(None) == {}
    assert check_headers({"x-AbC": "v\tw é"}) == {"X-Abc": "v\tw é"}
    for bad in (
        {"x": "a\r\nb"},
        {"a:b": "c"},
        {"Content-Length": "1"},
        {"connection": "close"},
        {"Expect": "x"},
        [],
        7,
    ):
        with pytest.raises(InvalidInputError):
            check_headers(bad)


# --- answers ----------------------------------------------------------------------------------------------------------

ASKED = ContextRequest(model="asked", messages=[user("x")], mode="common_prefix", ttl=7200)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "c"}, ("common_prefix", 7200, "asked")),
        ({"id": "c", "mode": None, "ttl": None, "model": None}, ("common_prefix", 7200, "asked")),
        ({"id": "c", "mode": "session", "ttl": "3600", "model": "m"}, ("session", 3600, "m")),
        ({"id": "c", "mode": "brand_new", "ttl": 1, "model": ""}, ("brand_new", 1, "asked")),
    ],
)
def test_context(body, expected):
    """What the service leaves out of a context is what was asked for."""
    context = read_context(json.dumps(body).encode(), {"request_id": "r"}, ASKED)
    assert (context.mode, context.ttl, context.model) == expected
    assert (context.id, context.request_id, context.raw) == ("c", "r", body)


def test_context_without_anything():
    """Where neither side said, mode is `session` and ttl unknown."""
    context = read_context(b'{"id":"c"}', {}, ContextRequest(model="m", messages=[user("x")]))
    assert (context.mode, context.ttl, context.model) == ("session", None, "m")


def read_chunk(data, event="message"):
    """Read the one event that these are."""
    chunks = []
    assert not read_events([(data, event, "", None)], chunks)
    (chunk,) = chunks
    return chunk


@pytest.mark.parametrize(
    "read", [lambda body: read_completion(body, {}), lambda body: read_context(body, {}, ASKED), read_chunk]
)
def test_errors_inside(read):
    """An error envelope where an answer was promised is that error; `"error": null` is none."""
    with pytest.raises(RateLimitError):
        read(envelope(code="ServerOverloaded"))
    with pytest.raises(InternalServerError):
        read(b'{"id":"c","choices":[],"error":"it broke"}')
    whole = b'{"id":"c","choices":[{"message":{"content":"the \\"error\\""}}],"error":null}'
    assert read(whole).id == "c"
    for junk in (b'{"error"', b'["error"]', b'"error"'):
        with pytest.raises(ProtocolError):
            read(junk)


def test_named_error_event():
    """An event of type `error` is an error, whatever its data."""
    for data in (b"", b"oops", b"{}", b"[1]", b"null", b'{"choices":[]}', envelope(message="oops")):
        with pytest.raises(InternalServerError):
            read_chunk(data, "error")


def test_events_before_the_end():
    """Chunks before the end marker, or before what is no chunk, are read; nothing after it is."""
    good, bad, end = ((data, "message", "", None) for data in (b'{"id":"c","choices":[]}', b"oops", b" [DONE]"))
    chunks = []
    assert read_events([good, good, end, bad], chunks)
    assert len(chunks) == 2
    with pytest.raises(ProtocolError):
        read_events([good, bad, end], chunks)
    assert [chunk.id for chunk in chunks] == ["c"] * 3


def events(*given):
    """Events, each given as its data, or as its type and data."""
    pairs = [one if isinstance(one, tuple) else ("message", one) for one in given]
    return [(data, event, "", None) for event, data in pairs]


HEY = b'{"id":"c","choices":[{"index":0,"delta":{"content":"hey"}}]}'
STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    "passed_over",
    [
        b"",
        b" ",
        b"ping",
        b"PONG",
        b'"heartbeat"',
        b": keep-alive",
        b"keepalive",
        b'{"type":"ping"}',
        b"{}",
        b'{"event":"heartbeat","time":1700000000}',
        b'{"message":"queued","status":"processing"}',
        b'{"error":null}',
        ("ping", b"ping"),
        ("heartbeat", b"2026-01-01"),
        ("ping", b'{"type":"ping"}'),
        ("progress", b'{"choices":[{"index":0,"delta":{"content":"no"}}]}'),
        ("message", b"\t"),
    ],
    ids=repr,
)
def test_events_that_are_no_chunk(passed_over):
    """Empty data, events of a foreign name, and heartbeats that carry data are passed over."""
    chunks = []
    assert read_events(events(passed_over, HEY, passed_over, STOP, passed_over, b"[DONE]"), chunks)
    assert [chunk.text for chunk in chunks] == ["hey", ""]


@pytest.mark.parametrize("event", ["message", "chat.completion.chunk"])
def test_events_that_are_chunks(event):
    """Unnamed events, and those named after the chunk, carry chunks; one without choices need not have text."""
    chunks = []
    azure = b'{"id":"","choices":[],"created":0,"model":"","prompt_filter_results":[]}'
    usage = b'{"usage":{"total_tokens":3}}'
    assert not read_events(events((event, azure), (event, HEY), (event, usage)), chunks)
    assert [(chunk.text, chunk.usage is None) for chunk in chunks] == [("", True), ("hey", True), ("", False)]


@pytest.mark.parametrize("event", ["message", "done", "end"])
def test_the_end_marker_by_any_name(event):
    """`[DONE]` ends the stream, whatever the name of its event."""
    assert read_events(events((event, b"[DONE]"), b"oops"), [])


@pytest.mark.parametrize(
    "data", [b"hello", b"pingx", b"1700000000", b"null", b'"text"', b"[1]", b"{", b'x{"choices":[]}']
)
def test_data_that_is_no_chunk(data):
    """Unnamed data of any other kind is an error, raised after the chunks before it."""
    chunks = []
    with pytest.raises(ProtocolError):
        read_events(events(HEY, data, STOP), chunks)
    assert len(chunks) == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"text":"NETWORK ERROR","error_code":50004}', InternalServerError),
        (b'{"code":"RateLimitExceeded","message":"slow down"}', RateLimitError),
        (b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', RateLimitError),
        (b'[{"error":{"code":429,"message":"slow down"}}]', RateLimitError),
        (b'{"object":"error","message":"slow down","code":429}', RateLimitError),
        (b'{"choices":[],"error":{"code":429,"message":"slow down"}}', RateLimitError),
    ],
)
def test_errors_of_other_shapes_in_a_stream(data, kind):
    """An error in a shape of its own is that error, with its message."""
    with pytest.raises(kind, match=r"slow down|NETWORK ERROR"):
        read_events(events(HEY, data), [])


STREAM = b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (HEY, STOP)


@pytest.mark.parametrize("body", [STREAM, b"\xef\xbb\xbf" + STREAM, b"\n: hi\n\n" + STREAM, STREAM[:-2], STREAM[:-14]])
def test_a_stream_in_answer_to_a_plain_call(body):
    """A whole stream that was not asked for is folded to the completion that was."""
    completion = read_completion(body, {"request_id": "r"})
    assert (completion.text, completion.finish_reason, completion.id) == ("hey", "stop", "c")
    assert completion.request_id == "r"


@pytest.mark.parametrize(
    "body", [b"data: [DONE]\n\n", b"data: %b\n\n" % HEY, STREAM[:60], b"data: {}\n\ndata: [DONE]\n\n", b"data:"]
)
def test_half_a_stream_in_answer_to_a_plain_call(body):
    """A stream that is not whole is no completion."""
    with pytest.raises(ProtocolError):
        read_completion(body, {})


def test_a_stream_of_fewer_replies_in_answer_to_a_plain_call():
    """A stream without an end marker is whole only if all replies that were asked for have ended."""
    whole = b"data: %b\n\ndata: %b\n\n" % (HEY, STOP)
    for body in (whole, whole + b"data: %b\n\n" % HEY.replace(b'"index":0', b'"index":1')):
        with pytest.raises(ProtocolError):
            read_completion(body, {}, replies=2)
    assert read_completion(whole + b"data: [DONE]\n\n", {}, replies=2).text == "hey"
    second = b"data: %b\n\n" % STOP.replace(b'"index":0', b'"index":1')
    assert len(read_completion(whole + second, {}, replies=2).choices) == 2


def test_what_looks_like_events():
    """A body is looked at before it is judged: lines of the standard's fields, and comments, begin a stream."""
    for beginning in (
        b"data: x",
        b"data:x",
        b"event: x",
        b": x",
        b"id: 1",
        b"retry: 1",
        b"\r\n\r\ndata:",
        b"\xef\xbb\xbfdata:",
    ):
        assert looks_like_events(beginning)
    for beginning in (b"", b"{}", b'{"data": 1}', b"<html>", b"dat", b"database: x", b"[1]"):
        assert not looks_like_events(beginning)


def test_done():
    """The end marker is `[DONE]`, with whatever white space around it."""
    assert all(is_done(data) for data in (b"[DONE]", b" [DONE]\t", b"[DONE]\n"))
    assert not any(is_done(data) for data in (b"", b"DONE", b"[done]", b'"[DONE]"', b"[DONE] x", b"x\n[DONE]"))
