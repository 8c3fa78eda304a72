"""LangChain's `ChatOpenAI` before the proxy, nothing changed but the base URL: the same answers, a smaller bill."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from ctxcache import FunctionCall, ToolCall
from ctxcache.gateway import Gateway, NewContext, Piece, Prompt
from ctxcache.gateway.rules.tokens import count_tokens

from .conftest import LONG, MARK, MODEL, UPSTREAM_KEY, Clock, Front, Upstream

pytest.importorskip("langchain_openai")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

Before = Callable[..., Awaitable[Front]]
QUESTIONS = [f"question {number}" for number in range(12)]
MARKED = SystemMessage([{"type": "text", "text": LONG, **MARK}])
UNMARKED = SystemMessage(LONG)


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def reply(messages: Sequence[tuple[str, str]], tools: Any) -> tuple[str, ToolCall | None]:
    """What the model says: a hash of all messages; or a call, where there are tools."""
    if tools and messages[-1][0] == "user":
        return "", ToolCall(id="call_1", function=FunctionCall(name="multiply", arguments='{"a": 6, "b": 7}'))
    return hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()[:16], None


class Hashing:
    """An engine whose answers depend on every message."""

    def __init__(self) -> None:
        self.contexts: list[NewContext] = []

    async def prepare(self, context: NewContext) -> None:
        """Note a new context."""
        self.contexts.append(context)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece]:
        """Write a reply."""
        text, call = reply([(message.role, message.text) for message in prompt.messages], prompt.request.tools)
        if call is not None:
            yield Piece(tool_calls=[call])
        for letter in text:
            yield letter


@pytest.fixture
def engine() -> Any:
    """Writes the gateway's answers."""
    return Hashing()


@pytest.fixture
async def plain(upstream: Upstream) -> str:
    """The base URL of the same model as a service without contexts."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        messages = [(message["role"], text_of(message.get("content"))) for message in body["messages"]]
        text, call = reply(messages, body.get("tools"))
        tokens = sum(count_tokens(text) for _, text in messages)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if call is not None:
            message = {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]}
        choice = {"index": 0, "message": message, "finish_reason": "stop" if call is None else "tool_calls"}
        usage = {"prompt_tokens": tokens, "completion_tokens": 16, "total_tokens": tokens + 16}
        return web.json_response({"id": "x", "model": MODEL, "choices": [choice], "usage": usage})

    upstream.answers["/v1/chat/completions"] = answer
    return upstream.url


def text_of(content: Any) -> str:
    """The text of a content in any form."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())


def chat(front: Front, **settings: Any) -> ChatOpenAI:
    """A model as a program makes it, at the proxy."""
    return ChatOpenAI(
        model=MODEL, base_url=front.proxy.base_url, api_key=front.proxy.api_key, max_retries=0, **settings
    )


def fresh(answers: Sequence[AIMessage]) -> int:
    """The input tokens that were not read from a cache."""
    usages = [answer.usage_metadata for answer in answers]
    return sum(u["input_tokens"] - u.get("input_token_details", {}).get("cache_read", 0) for u in usages if u)


async def at_service(url: str, system: SystemMessage) -> list[AIMessage]:
    """The answers without the proxy."""
    model = ChatOpenAI(model=MODEL, base_url=url, api_key=UPSTREAM_KEY, max_retries=0)
    return [await model.ainvoke([system, HumanMessage(question)]) for question in QUESTIONS]


@pytest.mark.parametrize("way", ["marked", "registered", "learned"])
async def test_same_answers_for_a_smaller_bill(
    gateway: Gateway, engine: Hashing, before: Before, plain: str, way: str
) -> None:
    """A long shared beginning is billed as new once; every answer is the answer without the proxy."""
    prefixes = [{"model": MODEL, "messages": [{"role": "system", "content": LONG}]}]
    settings = {"registered": {"prefixes": prefixes}, "learned": {"learn": 2, "learn_tokens": 100}}.get(way, {})
    front = await before(gateway.base_url, **settings)
    model, system = chat(front), MARKED if way == "marked" else UNMARKED
    if way == "learned":  # the gateway has no plain chat for the first
        with pytest.raises(Exception, match="404"):
            await model.ainvoke([system, HumanMessage(QUESTIONS[0])])
    answers = [await model.ainvoke([system, HumanMessage(question)]) for question in QUESTIONS]
    without = await at_service(plain, system)
    assert [answer.text for answer in answers] == [answer.text for answer in without]
    (context,) = engine.contexts
    assert context.tokens + fresh(answers) < 0.2 * fresh(without)


async def test_streams_threads_and_batches(front: Front, engine: Hashing, plain: str) -> None:
    """Streams end with their usage; threads and batches share the context."""
    model = chat(front, stream_usage=True)
    lists = [[MARKED, HumanMessage(question)] for question in QUESTIONS]
    expected = [answer.text for answer in await at_service(plain, MARKED)]
    total: Any = None
    async for chunk in model.astream(lists[0]):
        total = chunk if total is None else total + chunk
    assert total.text == expected[0]
    assert total.response_metadata["finish_reason"] == "stop"
    assert total.usage_metadata["input_token_details"]["cache_read"] > 500
    streamed = await asyncio.to_thread(lambda: "".join(chunk.text for chunk in model.stream(lists[1])))
    assert streamed == expected[1]
    for answers in (await model.abatch(lists), await asyncio.to_thread(model.batch, lists)):
        assert [answer.text for answer in answers] == expected
    assert len(engine.contexts) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(front: Front, engine: Hashing, plain: str, stream: bool) -> None:
    """Tools go along, a call comes back whole or streamed, and so does its result, as without the proxy."""
    service = ChatOpenAI(model=MODEL, base_url=plain, api_key=UPSTREAM_KEY, max_retries=0).bind_tools([multiply])

    async def ask(model: Any, messages: list[Any], *, stream: bool) -> Any:
        if not stream:
            return await model.ainvoke(messages)
        total: Any = None
        async for chunk in model.astream(messages):
            total = chunk if total is None else total + chunk
        return total

    ends = []
    for model, streams in ((chat(front).bind_tools([multiply]), stream), (service, False)):
        messages: list[Any] = [MARKED, HumanMessage("6 times 7?")]
        called = await ask(model, messages, stream=streams)
        (call,) = called.tool_calls
        result = multiply.invoke(call)
        assert (call["args"], result) == ({"a": 6, "b": 7}, ToolMessage("42", name="multiply", tool_call_id="call_1"))
        ends.append((await ask(model, [*messages, called, result], stream=streams)).text)
    assert ends[0] == ends[1]
    assert len(engine.contexts) == 1


async def test_expiry(front: Front, gateway: Gateway, engine: Hashing, clock: Clock) -> None:
    """A context that has ended is replaced, unnoticed."""
    model = chat(front)
    first = await model.ainvoke([MARKED, HumanMessage("Hi")])
    assert gateway.expire(engine.contexts[0].id)
    assert (await model.ainvoke([MARKED, HumanMessage("Hi")])).text == first.text
    assert len(engine.contexts) == 2
