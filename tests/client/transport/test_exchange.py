"""Reading an answer: idle and total limits, bodies of every kind, and one end."""

import asyncio
import gzip
import pickle

import pytest

from ctxcache import (
    APITimeoutError,
    Limits,
    OutcomeUnknownError,
    ProtocolError,
    QuotaExceededError,
    ReplyTimeoutError,
    SessionError,
    StreamInterruptedError,
    Timeouts,
)
from ctxcache.client.environment import Environment
from ctxcache.client.transport.evidence import Evidence
from ctxcache.wire import CHAT_PATH, Request

from ...hostile import (
    CHAT,
    CLOSE,
    DONE,
    END,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    after,
    answer,
    chunk,
    head,
    piece,
    pieces,
    streamed,
    trickle,
)
from ..calling import OK, Clock, failure, read


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
    clock, more = Clock(), asyncio.Event()
    hostile.plays([SSE, piece(STORY[0]), after(more), *pieces(*STORY[1:]), END])
    environment = Environment(clock=clock, look=0.001)
    stream = session_for(timeouts=Timeouts(idle=30), environment=environment).chat.stream(**CHAT)
    await anext(stream)
    await clock.pass_time(hostile, 100)
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
        ([STALL], False, ReplyTimeoutError),
        ([STALL], True, ReplyTimeoutError),
        ([answer()[:-1], STALL], False, ReplyTimeoutError),
        ([answer()[:-9], trickle(b"x" * 999, 0.01)], False, ReplyTimeoutError),
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


async def test_one_end(hostile, transport):
    """An exchange ends once: ending it again, in whatever way, gives nothing back twice and spoils no answer."""
    hostile.plays([answer()])
    request = Request(path=CHAT_PATH, body=b"{}", repeatable=False)
    exchange = await transport.open(request, "id", Timeouts(), Evidence())
    ends = []
    exchange.on_close = ends.append
    assert await exchange.read_all(1000) == answer().partition(b"\r\n\r\n")[2]
    exchange.fail(SessionError("too late"))
    exchange.close()
    exchange.abandon()
    await exchange.finish()
    assert (ends, transport.holdings()) == ([None], {"exchanges": 0, "slots": 0})


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
