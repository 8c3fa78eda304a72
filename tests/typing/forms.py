"""Every form of arguments and answers that users write. Never run: mypy and pyright read it."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, assert_type

from ctxcache import (
    UNSET,
    Answer,
    APITimeoutError,
    AsyncSession,
    ChatCompletion,
    ChatOptions,
    ChatParameters,
    Conversation,
    Cost,
    Hooks,
    InvalidInputError,
    ManagedStream,
    MemoryStore,
    Message,
    MessageDict,
    MessageLike,
    OutcomeUnknownError,
    Prefix,
    Prices,
    RedisStore,
    Retry,
    SQLiteStore,
    Store,
    StreamInterruptedError,
    Timeouts,
    ToolCall,
    ToolDict,
    Usage,
    assistant,
    system,
    tool,
    user,
)
from ctxcache.gateway import Gateway, ScriptedEngine

TOOLS: list[ToolDict] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Dumped:
    """A message as other libraries have it."""

    role: Literal["user"] = "user"
    content: str | None = "Hello"

    def model_dump(self) -> dict[str, Any]:
        """Return the fields."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Turn:
    """A message as a dataclass."""

    role: str
    content: str


async def session_settings() -> None:
    """Numbers, objects and None as settings."""
    AsyncSession("sk")
    AsyncSession("sk", "http://127.0.0.1:8000/v1", timeouts=20, retry=0)
    AsyncSession(timeouts=2.5, retry=Retry(attempts=5), limits=None, hooks=None, headers=None, http=None)
    AsyncSession(chat_defaults=None)
    session = AsyncSession(
        None, None, timeouts=None, retry=None, headers={"X-Team": "red"}, chat_defaults={"temperature": 0.2, "n": None}
    )
    assert_type(session.timeouts, Timeouts)
    assert_type(session.retry, Retry)
    assert_type(session.hooks, Hooks)
    assert_type(session.with_options(timeouts=5, retry=0, headers={"a": "b"}, chat_defaults={"top_p": 1}), AsyncSession)
    Timeouts(connect=1, pool=None, head=0.5)


async def messages(session: AsyncSession, reply: ChatCompletion, calls: list[ToolCall]) -> None:
    """All that may stand in a list of messages."""
    plain = {"role": "user", "content": "Hello"}
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    typed: MessageDict = {"role": "tool", "tool_call_id": "call-1", "content": "12 degrees"}
    parts = user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://…"}}])
    await session.chat.create(context_id="c", model="m", messages=[plain])
    await session.chat.create(context_id="c", model="m", messages=history)
    await session.chat.create(context_id="c", model="m", messages=(user("a"), typed))
    await session.chat.create(
        context_id="c", model="m", messages=[system("a"), parts, {"role": "user", "content": "b"}]
    )
    results = [tool("12", tool_call_id=call.id) for call in reply.tool_calls]
    await session.chat.create(context_id="c", model="m", messages=[reply.message, *results])
    await session.chat.create(
        context_id="c",
        model="m",
        messages=[reply.choices[0].message, assistant(None, reply.tool_calls), assistant("", calls)],
    )
    await session.chat.create(context_id="c", model="m", messages=[Dumped(), Turn("user", "a"), plain])
    mixed: list[MessageLike] = [user("a"), plain, typed, Dumped(), Turn("user", "a")]
    mixed.append(reply.message)
    mixed.append({"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": "12"})
    await session.context.create(
        model="m", messages=mixed, ttl=None, truncation_strategy=None, timeouts=None, retry=None
    )
    await session.context.create(
        model="m",
        messages=[system("a")],
        mode=None,
        truncation_strategy={"type": "last_history_tokens", "last_history_tokens": 4096},
        timeouts=5,
        retry=0,
    )


async def chats(session: AsyncSession, tools: list[dict[str, Any]], options: ChatParameters) -> None:
    """Every optional parameter of a chat."""
    await session.chat.create(context_id="c", model="m", messages=[user("a")], tools=TOOLS, tool_choice="auto")
    await session.chat.create(
        context_id="c",
        model="m",
        messages=[user("a")],
        temperature=1,
        top_p=None,
        n=1,
        stop="x",
        max_tokens=5,
        presence_penalty=-2,
        frequency_penalty=0.5,
        repetition_penalty=1.1,
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        thinking={"type": "disabled"},
        stream_options=None,
        user="user-1",
        logprobs=True,
        top_logprobs=3,
        logit_bias={"50": -100},
        service_tier="auto",
        repeatable=True,
        serialize=None,
        extra_headers={"X-Trace": "1"},
        extra_body={"seed": 1},
        timeouts=2.5,
        retry=1,
    )
    for none in (None, UNSET):
        await session.chat.create(
            context_id="c",
            model="m",
            messages=[user("a")],
            temperature=none,
            stop=none,
            tools=none,
            tool_choice=none,
            response_format=none,
            repeatable=none,
            serialize=none,
            extra_headers=none,
            extra_body=none,
            timeouts=none,
            retry=none,
        )
    await session.chat.create(context_id="c", model="m", messages=[user("a")], **options)
    whole: ChatOptions = {"context_id": "c", "model": "m", "messages": [user("a")], "temperature": 0.5}
    assert_type(await session.chat.create(**whole), ChatCompletion)


async def answers(reply: ChatCompletion) -> None:
    """What an answer holds, as the README writes it."""
    assert_type(reply.text, str)
    assert_type(reply.cached_tokens, int)
    assert_type(reply.usage, Usage | None)
    if reply.usage is not None:
        print(reply.usage.total_tokens, reply.usage.fresh_tokens, reply.usage.cached_tokens)
    print(json.dumps(reply.to_dict()), reply.to_json(), reply.request_id, reply.headers.get("x-request-id"))
    if reply.finish_reason == "tool_calls":
        for call in reply.tool_calls:
            assert_type(call, ToolCall)
            print(call.id, call.function.name, call.function.arguments, call.json())
    elif reply.finish_reason in ("length", "content_filter"):
        print("cut")
    elif reply.choices[0].finish_reason is None:
        print("unfinished")


async def streams(session: AsyncSession, prefix: Prefix, chat: Conversation) -> None:
    """Streams, plain and managed."""
    async for chunk in session.chat.stream(context_id="c", model="m", messages=[{"role": "user", "content": "a"}]):
        print(chunk.text, chunk.choices)
    async with prefix.stream("a", temperature=0) as stream:
        assert_type(stream, ManagedStream)
        assert_type(stream.text(), AsyncIterator[str])
        assert_type(stream.completion(), ChatCompletion)
        assert_type(await stream.finish(), ChatCompletion)
    async with session.chat.stream(context_id="c", model="m", messages=[user("a")]) as plain:
        async for data in plain.sse(heartbeat=15):
            assert_type(data, bytes)
    try:
        async for text in chat.stream([user("a")], max_tokens=5).text():
            print(text)
    except StreamInterruptedError as error:
        print(error.partial.text, error.cause)


async def managed(session: AsyncSession) -> None:
    """Prefixes, maps, conversations and stores."""
    async with SQLiteStore("contexts.db") as opened:
        assert_type(opened, SQLiteStore)
    for store in (MemoryStore(), SQLiteStore("contexts.db"), RedisStore("redis://127.0.0.1")):
        shared: Store = store
        prefix = Prefix(session, model="m", messages=[system("a")], ttl=None, store=shared, chat_defaults={"n": 1})
        assert_type(await prefix.ask("?", timeouts=20, retry=0, temperature=None), ChatCompletion)
        await prefix.ask({"role": "user", "content": "?"})
        await prefix.ask([user("?"), {"role": "user", "content": "?"}], extra_body={"seed": 1})
        await store.aclose()

    async def lines() -> AsyncIterator[str]:
        yield "a"

    def numbered() -> Iterator[str]:
        yield from map(str, range(5))

    prefix = Prefix(session, model="m", messages=[system("a")])
    async for answer in prefix.map(["a", "b"], concurrency=8, ordered=True, temperature=0, retry=5):
        assert_type(answer, Answer[str])
        if answer.ok:
            print(answer.text, answer.completion)
        else:
            print(answer.error)
    async for answer in prefix.map(lines()):
        print(answer.index, answer.question)
    async for answer in prefix.map(numbered(), max_tokens=5):
        print(answer.text)
    async for dialogue in prefix.map([[user("a"), assistant("b"), user("c")]]):
        assert_type(dialogue, Answer[list[Message]])
    assert_type(prefix.cost(Prices(input=0.8, cached=0.16, output=2)), Cost)
    chat = Conversation(session, model="m", messages=[{"role": "system", "content": "a"}], chat_defaults={"top_p": 1})
    assert_type(await chat.ask("?", tools=TOOLS, n=None), ChatCompletion)
    Conversation(session, model="m", messages=[system("a")], in_doubt="drop", ttl=None, truncation_strategy=None)
    assert_type(Conversation.load(session, chat.save()), Conversation)


async def mistakes(session: AsyncSession, prefix: Prefix) -> None:
    """What a type checker refuses: each line would be an unused comment if it did not."""
    chat = session.chat
    await chat.create(context_id="c", model="m", messages=[user("a")], temprature=1)  # type: ignore[call-overload]
    chat.stream(context_id="c", model="m", messages=[user("a")], stop=5)  # type: ignore[arg-type]
    await prefix.ask("?", timeout=5)  # type: ignore[call-arg]


async def failures(session: AsyncSession) -> None:
    """Errors, caught by what can be done."""
    try:
        await session.context.create(model="m", messages=[user("a")])
    except InvalidInputError as error:
        assert_type(error.field, str)
    except APITimeoutError as error:
        print(error.attempts, isinstance(error, OutcomeUnknownError))
    except TimeoutError:
        print("another limit")


async def gateways() -> None:
    """A gateway with settings."""
    async with Gateway(engine=ScriptedEngine(length=5, first_token_delay=0), models={"m": 8192}, port=0) as gateway:
        assert_type(AsyncSession(gateway.api_key, gateway.base_url), AsyncSession)
