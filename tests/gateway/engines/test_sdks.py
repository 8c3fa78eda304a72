"""The vendor's SDK and openai's as clients, on each kind of engine; where they are installed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxcache.gateway import LlamaEngine, Piece, Prompt, ScriptedEngine, UpstreamEngine
from ctxcache.models import FunctionCall, PromptTokensDetails, ToolCall, Usage
from tests.gateway.engines.llama.conftest import FAKE, gguf, number
from tests.hostile import DONE, Hostile, event, streamed

MODEL = "Doubao-1.5-pro-32k"
TOOLS: Any = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}]
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "42"}

pytestmark = pytest.mark.filterwarnings("default")  # of the SDKs, and of what they are built on


class Pieces:
    """An engine that says hello and calls a tool."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """Write a reply."""
        yield Piece(reasoning="Hm.")
        yield Piece(text="Hel")
        yield Piece(text="lo")
        yield Piece(tool_calls=(ToolCall(id="call_1", function=FunctionCall(name="f", arguments='{"a":1}')),))
        details = PromptTokensDetails(cached_tokens=8)
        usage = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12, prompt_tokens_details=details)
        yield Piece(usage=usage)


def chunk(**delta: Any) -> bytes:
    """A chunk of the same reply, as a server sends it."""
    reason = None if delta else "tool_calls"
    return event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def call(**function: str) -> list[Any]:
    """A fragment of the tool call."""
    begin = {"id": "call_1", "type": "function"} if "name" in function else {}
    return [{"index": 0, **begin, "function": function}]


COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 8}}
SERVED = streamed(
    chunk(role="assistant", reasoning_content="Hm."),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(tool_calls=call(name="f", arguments='{"a"')),
    chunk(tool_calls=call(arguments=":1}")),
    chunk(),
    event({"id": "c", "choices": [], "usage": COUNTS}),
    DONE,
)


@pytest.fixture(params=["scripted", "pieces", "upstream", "llama"])
def engine(request: Any, hostile: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Each kind of engine; all but the scripted one call a tool."""
    hostile.plays(*[[SERVED]] * 4)
    monkeypatch.setenv("PYTHONPATH", str(FAKE))  # of llama.cpp's process
    model = tmp_path / "small.gguf"
    model.write_bytes(gguf(("fake.context_length", number(4, 64))))
    return {
        "scripted": ScriptedEngine(),
        "pieces": Pieces(),
        "upstream": UpstreamEngine(hostile.url, kind="openai", warm=False),
        "llama": LlamaEngine(model, name=MODEL),
    }[request.param]


def expect(engine: Any, text: str, arguments: str, reason: str, cached: int) -> None:
    """Check what a client has read of a reply."""
    if isinstance(engine, ScriptedEngine):
        assert text.startswith("This is a scripted answer")
        assert (arguments, reason) == ("", "stop")
        assert cached > 0
    elif isinstance(engine, LlamaEngine):  # repeats the question
        assert text.rstrip() in ("Hi", RESULT["content"])
        assert (json.loads(arguments), reason) == ({"a": 1}, "tool_calls")
        assert cached >= 3
    else:
        assert (text, json.loads(arguments), reason, cached) == ("Hello", {"a": 1}, "tool_calls", 8)


@pytest.mark.parametrize("mode", ["session", "common_prefix"])
async def test_the_vendors_sdk(start: Any, engine: Any, mode: Any) -> None:
    """Create, a plain and a streamed chat, and the error for a context that is gone."""
    ark = pytest.importorskip("volcenginesdkarkruntime")
    api = await start(engine=engine)
    key, url = api.gateway.api_key, api.gateway.base_url
    async with ark.AsyncArk(api_key=key, base_url=url, max_retries=0) as client:
        chat = client.context.completions.create
        first = [{"role": "system", "content": "Be kind."}]
        context = await client.context.create(model=MODEL, mode=mode, messages=first)
        given: Any = {"context_id": context.id, "model": MODEL, "tools": TOOLS}
        plain = await chat(messages=[{"role": "user", "content": "Hi"}], **given)
        message = plain.choices[0].message
        arguments = message.tool_calls[0].function.arguments if message.tool_calls else ""
        cached = plain.usage.prompt_tokens_details.cached_tokens
        expect(engine, message.content, arguments, plain.choices[0].finish_reason, cached)
        text = arguments = reason = ""
        async for data in await chat(messages=[RESULT], stream=True, stream_options={"include_usage": True}, **given):
            cached = data.usage.prompt_tokens_details.cached_tokens if data.usage else cached
            for choice in data.choices:
                text += choice.delta.content or ""
                arguments += "".join(part.function.arguments or "" for part in choice.delta.tool_calls or ())
                reason = choice.finish_reason or reason
        expect(engine, text, arguments, reason, cached)
        api.gateway.expire(context.id)
        with pytest.raises(Exception, match="may have expired") as gone:
            await chat(messages=[{"role": "user", "content": "Hi"}], **given)
        assert (gone.value.status_code, gone.value.code) == (404, "NotFound.context_id")  # type: ignore[attr-defined]


async def test_openais_sdk(start: Any, engine: Any) -> None:
    """The models, a plain and a streamed chat read by openai's types, and the error for a context that is gone."""
    openai = pytest.importorskip("openai")
    chat = pytest.importorskip("openai.types.chat")
    merging = pytest.importorskip("openai.lib.streaming.chat")
    api = await start(engine=engine)
    created = await api.create(mode="common_prefix")
    path, body = "/context/chat/completions", {**api.chat_body(created["id"], "Hi"), "tools": TOOLS}
    key, url = api.gateway.api_key, api.gateway.base_url
    async with openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0) as client:
        assert MODEL in [model.id async for model in client.models.list()]
        plain = await client.post(path, cast_to=chat.ChatCompletion, body=body)
        state = merging.ChatCompletionStreamState(input_tools=TOOLS)
        streaming = {**body, "stream": True, "stream_options": {"include_usage": True}}
        chunks = openai.AsyncStream[chat.ChatCompletionChunk]
        async for data in await client.post(
            path, cast_to=chat.ChatCompletionChunk, body=streaming, stream=True, stream_cls=chunks
        ):
            state.handle_chunk(data)
        for answer in (plain, state.get_final_completion()):
            message = answer.choices[0].message
            arguments = message.tool_calls[0].function.arguments if message.tool_calls else ""
            cached = answer.usage.prompt_tokens_details.cached_tokens
            expect(engine, message.content, arguments, answer.choices[0].finish_reason, cached)
        api.gateway.expire(created["id"])
        with pytest.raises(openai.NotFoundError):
            await client.post(path, cast_to=chat.ChatCompletion, body=body)
