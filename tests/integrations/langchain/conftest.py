"""A gateway in a thread of its own, with an engine that does as asked; models of LangChain before it."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest

from ctxcache import BadRequestError, FunctionCall, ToolCall
from ctxcache.gateway import Gateway, NewContext, Piece, Prompt
from ctxcache.integrations.sync import BackgroundLoop

MODEL = "Doubao-1.5-pro-32k"
KEY = "sk-langchain-5f2e9c7a41d8b306"
MANUAL = "The warranty lasts two years. " * 40


class Obedient:
    """Does as the last message says, as a model would that follows instructions.

    With tools: calls the tool of `tool_choice`, any for `required`, or the tool that the message names; after a result:
    `done: RESULT`. With a `response_format`: JSON of the schema. Numbers and quoted words of the message are values.
    `say: TEXT` says that; `think: TEXT` reasons before, `refuse: TEXT` is an error; `endless` has no end; others are
    answered `echo: MESSAGE`.
    """

    def __init__(self) -> None:
        self.contexts: list[NewContext] = []
        self.prompts: list[Prompt] = []
        self.closed = threading.Event()
        self.cut = False  # whether tool calls break off in the middle, with the reason `length`

    async def prepare(self, context: NewContext) -> None:
        """Note a new context."""
        self.contexts.append(context)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece]:
        """Write a reply."""
        self.prompts.append(prompt)
        last = prompt.question[-1]
        tool = None if last.role == "tool" else _chosen(prompt)
        try:
            if tool is not None:
                for piece in self._call(tool, last.text):
                    yield piece
                return
            if last.text.startswith("refuse: "):
                raise BadRequestError(last.text.removeprefix("refuse: "), status=400)
            if last.text.startswith("think: "):
                yield Piece(reasoning="Let me ")
                yield Piece(reasoning="think.")
                yield Piece(text=last.text.removeprefix("think: "))
                return
            for word in re.findall(r"\s*\S+", _text(prompt)):
                yield word
            if last.text == "endless":
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    def _call(self, tool: Mapping[str, Any], text: str) -> Iterator[Piece]:
        function = tool["function"]
        arguments = json.dumps(_value(function["parameters"], text), ensure_ascii=False)
        if self.cut:
            cut = FunctionCall(name=function["name"], arguments=arguments[:-3])
            yield Piece(tool_calls=[ToolCall(id="call_1", function=cut)], finish_reason="length")
            return
        head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": ""}}
        yield Piece(tool_calls=[head])
        for start in range(0, len(arguments), 4):
            yield Piece(tool_calls=[{"index": 0, "function": {"arguments": arguments[start : start + 4]}}])


def _chosen(prompt: Prompt) -> Mapping[str, Any] | None:
    tools: Any = prompt.request.tools or ()
    choice: Any = prompt.request.tool_choice
    text = prompt.question[-1].text
    for tool in tools:
        name = tool["function"]["name"]
        if choice == "required" or (isinstance(choice, Mapping) and choice["function"]["name"] == name):
            return dict(tool)
        if name in text or any(part in text.lower() for part in name.split("_")[1:]):
            return dict(tool)
    return None


def _text(prompt: Prompt) -> str:
    last = prompt.question[-1]
    form: Any = prompt.request.response_format
    if isinstance(form, Mapping):
        if form["type"] == "json_schema":
            return json.dumps(_value(form["json_schema"]["schema"], last.text))
        return json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", last.text), "a cat"))
    if last.role == "tool":
        return f"done: {last.text}"
    return last.text.removeprefix("say: ") if last.text.startswith("say: ") else f"echo: {last.text}"


def _value(schema: Mapping[str, Any], text: str) -> Any:
    """A value of a JSON schema: numbers and quoted words of the text, in order, else made up."""
    numbers, words = iter(re.findall(r"\d+", text)), iter(re.findall(r"'([^']+)'", text))

    def make(schema: Mapping[str, Any]) -> Any:
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            return {name: make(field) for name, field in schema.get("properties", {}).items()}
        if kind in ("integer", "number"):
            return int(next(numbers, "1"))
        if kind == "array":
            return [make(schema.get("items", {}))]
        return next(words, "a cat")

    return make(schema)


@attrs.frozen
class Served:
    """A gateway that listens, and the engine behind."""

    base_url: str
    gateway: Gateway
    engine: Obedient

    def model(self, **arguments: Any) -> Any:
        """A model before the gateway."""
        from ctxcache.integrations.langchain import ChatCtxCache

        own: dict[str, Any] = {"model": MODEL, "messages": [("system", MANUAL)], "api_key": KEY}
        return ChatCtxCache(**{**own, "base_url": self.base_url, **arguments})


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Obedient], Gateway]]:
    """Start gateways in a thread of their own, which end with the module."""
    background = BackgroundLoop()
    gateways: list[Gateway] = []

    def start(engine: Obedient) -> Gateway:
        gateway = Gateway(engine=engine, api_key=KEY)
        background.run(gateway.__aenter__())
        gateways.append(gateway)
        return gateway

    yield start
    for gateway in gateways:
        background.run(gateway.aclose())
    background.close()


@pytest.fixture
def served(serve: Callable[[Obedient], Gateway]) -> Served:
    """A gateway of the test's own."""
    engine = Obedient()
    gateway = serve(engine)
    return Served(gateway.base_url, gateway, engine)
