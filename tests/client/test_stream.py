"""Streams: the right text, the connection given back, and misuse refused."""

import asyncio
import json

import pytest

from ctxcache import (
    CtxCacheError,
    FunctionCall,
    Limits,
    ProtocolError,
    SessionError,
    StreamInterruptedError,
    Timeouts,
    ToolCall,
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
    streamed,
    trickle,
)
from .calling import texts

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4}}


FINISHED = chunk("", finish="stop")


@pytest.fixture
def session(session_for):
    """Here, a session of one connection: a leak shows as a call that finds none."""
    return session_for(limits=Limits(connections=1), timeouts=Timeouts(pool=1, head=5, idle=5))


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
    assert stream.context_id == CHAT["context_id"] == completion.context_id
    assert stream.client_request_id == hostile.posts[0].headers["x-client-request-id"] == completion.client_request_id


async def test_finish(hostile, session, held):
    """`finish` reads what is left, and returns the whole answer, as often as asked."""
    hostile.plays([streamed()], [streamed()])
    stream = session.chat.stream(**CHAT)
    assert (await anext(stream)).text == "Once"
    completion = await stream.finish()
    assert (completion.text, stream.done, held(session)) == (STORY_TEXT, True, {})
    assert await stream.finish() == completion
    assert (await session.chat.stream(**CHAT).finish()).text == STORY_TEXT
    assert completion.raw == completion.to_dict() == json.loads(json.dumps(completion.to_dict()))
    assert completion.raw["choices"][0]["message"]["content"] == STORY_TEXT


async def test_finish_of_half_an_answer(hostile, session, held):
    """`finish` raises what iterating raises: half an answer is none."""
    hostile.plays([SSE, *pieces(*STORY[:2]), RESET])
    stream = session.chat.stream(**CHAT)
    for _ in range(2):
        with pytest.raises(StreamInterruptedError):
            await stream.finish()
    assert held(session) == {}
    await (left := session.chat.stream(**CHAT)).aclose()
    with pytest.raises(SessionError, match="closed"):
        await left.finish()


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
    assert hostile.posts[0].headers["accept"] == "application/json"


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
        ToolCall(id="t0", function=FunctionCall(name="look", arguments='{"a":1}')),
        ToolCall(id="t1"),
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
