"""Streamed answers, over a real socket."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any
from unittest.mock import create_autospec

import pytest
from aiohttp.abc import AbstractStreamWriter
from aiohttp.test_utils import make_mocked_request

from ctxcache import codec
from ctxcache.errors import RateLimitError
from ctxcache.gateway import MODELS, Piece, ScriptedEngine
from ctxcache.gateway.contexts import Contexts
from ctxcache.gateway.generation import Generation
from ctxcache.gateway.rules.table import ContextTable
from ctxcache.gateway.streaming import StreamedAnswer
from ctxcache.models import ChatRequest, ContextRequest, assistant, system, user

from .raw import post

MODEL = MODELS[0]


def folded(chunks: list[Any], index: int = 0) -> tuple[str, str | None]:
    """Return the text and the finish reason of a reply."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    return "".join(choice["delta"]["content"] for choice in choices[1:-1]), choices[-1]["finish_reason"]


async def test_a_stream_is_openais(start: Any, dictated: Any) -> None:
    """A stream is role, text, finish reason and `[DONE]`, without usage unless asked for."""
    api = await start(engine=dictated)
    dictated.say("Hel", "lo", None)
    answer = await api.chat((await api.create())["id"], stream=True)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    chunks = answer.chunks
    (same,) = {chunk["id"] for chunk in chunks}
    head = {"id": same, "object": "chat.completion.chunk", "created": 1733913813, "model": MODEL}
    assert chunks == [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in (
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Hel"}, None),
            ({"content": "lo"}, None),
            ({}, "stop"),
        )
    ]


async def test_the_usage_comes_last_where_it_was_asked_for(api: Any) -> None:
    """A chunk with the usage and no choices comes before `[DONE]`; the others have `usage: null`."""
    created = await api.create()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = (await api.chat(created["id"], **options)).chunks
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 26,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


@pytest.mark.parametrize("options", [{}, {"include_usage": False}, {"include_usage": None}, {"other": True}])
async def test_no_usage_where_it_was_not_asked_for(api: Any, options: dict[str, Any]) -> None:
    """Only `include_usage: true` asks for it."""
    chunks = (await api.chat((await api.create())["id"], stream=True, stream_options=options)).chunks
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"max_tokens": 7},
        {"stop": "not a lang"},
        {"n": 2, "stop": ["holds", "language"], "max_tokens": 20},
        {"messages": [{"role": "user", "content": '你好 "quoted" \\ \u2028 \x00 \U0001f600 end'}]},
    ],
)
@pytest.mark.parametrize("chunks_per_write", [1, 3, 64])
async def test_streamed_and_plain_are_the_same(start: Any, fields: dict[str, Any], chunks_per_write: int) -> None:
    """A request has the same texts, finish reasons and usage plain and streamed, however chunks share writes."""
    api = await start(chunks_per_write=chunks_per_write)
    created = await api.create(mode="common_prefix")
    plain = (await api.chat(created["id"], **fields)).json
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = (await api.chat(created["id"], **fields, **options)).chunks
    for choice in plain["choices"]:
        assert folded(chunks, choice["index"]) == (choice["message"]["content"], choice["finish_reason"])
    assert chunks[-1]["usage"] == plain["usage"]
    assert len(plain["choices"]) == fields.get("n", 1)


async def test_our_own_codec_reads_the_chunks(api: Any) -> None:
    """The client's fast decoder reads the chunks."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *data, done = (await api.chat((await api.create())["id"], **options)).data
    chunks = [codec.decode_chunk(event.encode()) for event in data]
    assert "".join(chunk.text for chunk in chunks).startswith("This is a scripted answer")
    assert (chunks[-1].usage.cached_tokens, done) == (2, "[DONE]")


async def test_replies_are_interleaved(api: Any) -> None:
    """With n > 1 the replies alternate piece by piece."""
    chunks = (await api.chat((await api.create())["id"], stream=True, n=3)).chunks
    runs = [index for index, _ in groupby(chunk["choices"][0]["index"] for chunk in chunks)]
    assert runs[:6] in ([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2][::-1])
    assert len(runs) > 40


async def test_a_streamed_turn_is_stored(api: Any) -> None:
    """The next call may follow as soon as `[DONE]` is read, and finds the turn cached."""
    created = await api.create()
    cached = 2
    for turn in range(5):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        usage = (await api.chat(created["id"], **options)).chunks[-1]["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached, turn
        cached = usage["total_tokens"]


async def test_each_piece_comes_when_it_is_written(start: Any, dictated: Any) -> None:
    """The text of a slow engine is sent at once, and so is the response head."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("one")
    async with asyncio.timeout(5), api.open(created["id"], stream=True) as response:
        for piece in ("one", "two", "three"):
            seen = b""
            while f'"content":"{piece}"'.encode() not in seen:
                seen += await response.content.readany()
            dictated.say({"one": "two", "two": "three", "three": None}[piece])
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")


async def test_a_session_is_busy_until_the_last_chunk(start: Any, dictated: Any) -> None:
    """A streaming session is busy, and nothing is stored before the end."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("half")
    async with asyncio.timeout(5), api.open(created["id"], stream=True) as response:
        await response.content.readany()
        assert (await api.chat(created["id"])).error["code"] == "OperationDenied.InvalidState"
        assert len(api.gateway.messages(created["id"])) == 1
        dictated.say(" done", None)
        await response.content.read()
    assert api.gateway.messages(created["id"]) == (system("Be kind."), user("hello"), assistant("half done"))


@pytest.mark.parametrize("failure", [RuntimeError("secret detail"), ConnectionResetError(), "\ud800", 5])
async def test_an_engine_that_fails_after_it_began_is_an_error_event(start: Any, dictated: Any, failure: Any) -> None:
    """A late failure sends the pieces, an error event and no `[DONE]`; nothing is stored, the session free."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("one")
    async with asyncio.timeout(5), api.open(created["id"], stream=True) as response:
        seen = await response.content.readany()
        dictated.say("two", failure)
        seen += await response.content.read()
    *chunks, error = [json.loads(event.removeprefix("data: ")) for event in seen.decode().strip("\n").split("\n\n")]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "one", "two"]
    request_id = response.headers["X-Request-Id"]
    assert error == {
        "error": {
            "code": "InternalServiceError",
            "message": f"The service encountered an unexpected internal error. Request id: {request_id}",
            "param": "",
            "type": "InternalServerError",
        }
    }
    assert len(api.gateway.messages(created["id"])) == 1
    dictated.say(None)
    assert (await api.chat(created["id"])).status == 200


async def test_a_piece_that_json_cannot_carry_is_an_error_event(start: Any) -> None:
    """Any failure after the head ends the stream with an error event; nothing but chunks follows, the session is free.

    The connection, which is kept, would carry a second response inside the body.
    """

    class Odd:
        async def generate(self, prompt: Any) -> AsyncIterator[Piece]:
            yield Piece(text="one")
            await asyncio.sleep(0)
            yield Piece(finish_reason="\ud800")

    api = await start(engine=Odd())
    created = await api.create()
    for _ in range(2):
        answer = await api.chat(created["id"], stream=True)
        *_, last = answer.data
        assert json.loads(last)["error"]["code"] == "InternalServiceError"
        assert '"content":"one"' in answer.data[1]
    assert len(api.gateway.messages(created["id"])) == 1


async def test_an_engine_that_fails_before_it_began_is_a_plain_error(start: Any, dictated: Any) -> None:
    """A failure before the first piece has the error's own HTTP status."""
    api = await start(engine=dictated)
    dictated.say(RateLimitError("Too fast.", status=429, code="RateLimitExceeded"))
    answer = await api.chat((await api.create())["id"], stream=True)
    assert (answer.status, answer.error["code"]) == (429, "RateLimitExceeded")
    assert answer.headers["Content-Type"] == "application/json"


async def test_one_failed_reply_fails_the_answer(start: Any) -> None:
    """With n > 1 a failed reply fails the answer at once, and the other replies are given up."""

    class Half:
        given_up = False

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            if prompt.index:
                raise RuntimeError
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                self.given_up = True

    engine = Half()
    api = await start(engine=engine)
    answer = await api.chat((await api.create())["id"], n=2)
    assert (answer.status, engine.given_up) == (500, True)


async def test_an_empty_answer_is_whole(start: Any) -> None:
    """An answer without text still has a role, a finish reason and `[DONE]`."""
    api = await start(engine=ScriptedEngine(length=0))
    created = await api.create()
    assert folded((await api.chat(created["id"], stream=True)).chunks) == ("", "stop")
    assert (await api.chat(created["id"])).json["choices"][0]["message"]["content"] == ""


async def test_what_was_held_back_comes_at_the_end(start: Any, dictated: Any) -> None:
    """Half a stop string at the end is sent as text."""
    api = await start(engine=dictated)
    dictated.say("abc ST", None)
    chunks = (await api.chat((await api.create())["id"], stream=True, stop="STOP")).chunks
    assert folded(chunks) == ("abc ST", "stop")


@pytest.mark.parametrize("chunks_per_write", [1, 7, 64])
async def test_a_long_stream_is_whole(start: Any, chunks_per_write: int) -> None:
    """Thousands of chunks all arrive, in order."""
    api = await start(engine=ScriptedEngine(length=5000), chunks_per_write=chunks_per_write)
    created = await api.create()
    chunks = (await api.chat(created["id"], stream=True)).chunks
    assert len(chunks) == 5002
    assert folded(chunks)[0] == api.gateway.messages(created["id"])[-1].content


async def test_a_client_of_http_1_0_gets_a_stream_too(api: Any) -> None:
    """An HTTP/1.0 client gets the stream without chunked encoding, ended by the end of the connection."""
    created = await api.create()
    body = json.dumps(api.chat_body(created["id"], "hello", stream=True)).encode()
    request = post(body, path=b"/v1/context/chat/completions", key=api.gateway.api_key)
    reader, _ = await api.connect(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    async with asyncio.timeout(5):
        head, _, events = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


async def chat_anew(api: Any, dictated: Any, context_id: str) -> Any:
    """Chat, with every earlier dictated piece dropped."""
    while not dictated.pieces.empty():
        dictated.pieces.get_nowait()
    dictated.say("next", None)
    return await api.chat(context_id)


@pytest.mark.parametrize(
    "pieces",
    [
        [None],
        ["two"],
        ["two", None],
        ["two", RuntimeError()],
    ],
)
@pytest.mark.parametrize("first", [[], ["one"]])
async def test_a_connection_that_broke_unnoticed_is_no_alarm(
    start: Any, dictated: Any, caplog: pytest.LogCaptureFixture, first: list[Any], pieces: list[Any]
) -> None:
    """A connection that breaks during a write, at the start, in the middle or at the end, frees the session."""
    api = await start(engine=dictated, chunks_per_write=1)
    created = await api.create()
    body = json.dumps(api.chat_body(created["id"], "hello", stream=True)).encode()
    client = socket.create_connection(("127.0.0.1", api.gateway.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    client.sendall(post(body, path=b"/v1/context/chat/completions", key=api.gateway.api_key))
    dictated.say(*first, client.close, *pieces)
    async with asyncio.timeout(5):
        await dictated.closed.wait()
        while (answer := await chat_anew(api, dictated, created["id"])).status == 403:
            pass
    assert answer.json["choices"][0]["message"]["content"] == "next"
    levels = {record.levelname for record in caplog.records if "the engine failed" not in record.getMessage()}
    assert levels <= {"DEBUG"}


@pytest.mark.parametrize("pieces", [["one"], ["one", None], [RuntimeError()]])
async def test_a_write_that_fails_is_a_client_that_left(clock: Any, dictated: Any, pieces: list[Any]) -> None:
    """A failed write, in the middle, at the end or of an error, ends the answer without an exception."""
    table = ContextTable({MODEL: 100}, clock, lambda _: 0)
    context = table.create(ContextRequest(model=MODEL, messages=[user("x")]))
    chat = table.begin(ChatRequest(context_id=context.id, model=MODEL, messages=[user("x")], stream=True))
    writer = create_autospec(AbstractStreamWriter, instance=True)
    request: Any = make_mocked_request("POST", "/", writer=writer)
    async with asyncio.timeout(5), Generation(dictated, chat, ahead=10) as generation:
        answer = StreamedAnswer(
            request,
            {"X-Request-Id": "r"},
            chat,
            generation,
            Contexts(table),
            answer_id="a",
            created=0,
            chunks_per_write=1,
        )
        dictated.say("zero")
        sending = asyncio.create_task(answer.send())
        while not writer.write.call_count:  # noqa: ASYNC110  # the writer is a mock
            await asyncio.sleep(0)
        writer.write.side_effect = writer.write_eof.side_effect = ConnectionResetError
        dictated.say(*pieces)
        assert (await sending).prepared
