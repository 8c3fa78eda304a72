"""LiteLLM's SDK and router over a custom provider, and a real gateway behind."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctxcache import (
    AsyncSession,
    BadRequestError,
    Conversation,
    FunctionCall,
    InternalServerError,
    InvalidInputError,
    OutcomeUnknownError,
    Prefix,
    RateLimitError,
    ToolCall,
    system,
)
from ctxcache.gateway import Gateway, Piece

from .conftest import MANUAL, MODEL, Scripted

pytest.importorskip("litellm")

import litellm

from ctxcache.integrations.litellm import CtxCacheLLM

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own

USER = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def call(name: str, arguments: str, id_: str = "call_1") -> Piece:
    """A piece with a whole tool call."""
    return Piece(tool_calls=[ToolCall(id=id_, function=FunctionCall(name=name, arguments=arguments))])


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CtxCacheLLM]]:
    """Make a provider of contexts by name."""
    made: list[CtxCacheLLM] = []
    monkeypatch.setattr(litellm, "suppress_debug_info", True)

    def make(**contexts: Any) -> CtxCacheLLM:
        made.append(CtxCacheLLM(contexts))
        monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "ctxcache", "custom_handler": made[-1]}])
        return made[-1]

    yield make
    for provider in made:
        provider.close()


@pytest.fixture
def over_prefix(provide: Callable[..., CtxCacheLLM], prefix: Prefix) -> CtxCacheLLM:
    """A provider with the prefix as `manual`."""
    return provide(manual=prefix)


@pytest.fixture
def over_conversation(provide: Callable[..., CtxCacheLLM], conversation: Conversation) -> CtxCacheLLM:
    """A provider with the conversation as `chat`."""
    return provide(chat=conversation)


async def ask(model: str = "ctxcache/manual", messages: Any = USER, **options: Any) -> Any:
    """Ask and await the answer."""
    return await litellm.acompletion(model=model, messages=messages, **options)


async def read(model: str = "ctxcache/manual", messages: Any = USER, **options: Any) -> list[Any]:
    """Ask and read the stream."""
    options = {"stream_options": {"include_usage": True}, **options}
    return [chunk async for chunk in await ask(model, messages, stream=True, **options)]


def text_of(chunks: list[Any]) -> str:
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- a prefix


async def test_acompletion(over_prefix: CtxCacheLLM, engine: Scripted) -> None:
    """An answer is whole, with finish reason and cached tokens; marks of caches are not sent."""
    marked = [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]
    answer = await ask(messages=[{"role": "system", "content": "Be brief.", "cache_control": {"type": "x"}}, *marked])
    assert answer.choices[0].message.content == "echo: Hi"
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", MODEL)
    assert answer.usage.prompt_tokens_details.cached_tokens > 100
    assert engine.asked == [("system", "Be brief."), ("user", "Hi")]
    assert "cache_control" not in f"{engine.prompts[0].question}"


async def test_astreaming(over_prefix: CtxCacheLLM, engine: Scripted) -> None:
    """A stream has its pieces, then finish reason and usage."""
    engine.line = [["one ", "two ", "three"]]
    chunks = await read()
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert pieces == ["one ", "two ", "three"]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 100
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == "one two three"


async def test_parameters(over_prefix: CtxCacheLLM, engine: Scripted) -> None:
    """Parameters become those of the call, others go into the body; bad ones are a bad request, and nothing is sent."""
    further: Any = {"seed": 7, "top_k": 3, "extra_body": {"x": 1}, "extra_headers": {"X-A": "b"}, "timeout": 30}
    await ask(temperature=0.5, max_completion_tokens=9, stop=["END"], stream_options={"include_usage": True}, **further)
    request = engine.prompts[0].request
    assert (request.temperature, request.max_tokens, request.stop) == (0.5, 9, ("END",))
    assert request.extra == {"seed": 7, "top_k": 3, "x": 1}
    with pytest.raises(litellm.BadRequestError, match="temperature must be"):
        await ask(temperature=9)
    with pytest.raises(litellm.BadRequestError, match="n must be 1 in a stream"):
        await read(n=2)
    assert len((await ask(n=2)).choices) == 2
    assert len(engine.prompts) == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools(over_prefix: CtxCacheLLM, engine: Scripted, streamed: bool) -> None:
    """Tool calls and reasoning come whole, streamed or not, and LiteLLM's own message goes back as it is."""
    engine.line = [[Piece(reasoning="hm"), call("get_weather", '{"city": "Delft"}')]]
    if streamed:
        answer = litellm.stream_chunk_builder(await read(tools=TOOLS))
    else:
        answer = await ask(tools=TOOLS)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content == "hm"
    asked = choice.message.tool_calls[0]
    assert (asked.id, asked.function.name, asked.function.arguments) == ("call_1", "get_weather", '{"city": "Delft"}')
    result = {"role": "tool", "tool_call_id": asked.id, "content": "Rain."}
    assert (await ask(messages=[*USER, choice.message, result])).choices[0].message.content == "echo: Rain."
    _, said, _ = engine.prompts[-1].question
    assert said.extra["tool_calls"][0]["function"]["name"] == "get_weather"


async def test_half_a_stream_is_an_error(over_prefix: CtxCacheLLM, engine: Scripted) -> None:
    """A stream that breaks off raises, and no chunk says that it ended."""
    engine.line = [["one ", InternalServerError("it broke", status=500)]] * 9
    chunks = []
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):
        async for chunk in await ask(stream=True):
            chunks.append(chunk)
    assert text_of(chunks) == "one "
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}


async def test_leaving_a_stream(over_prefix: CtxCacheLLM, session: AsyncSession, engine: Scripted) -> None:
    """A stream that is closed lets go of its connection."""
    engine.line = [["one ", *["more "] * 50]]
    stream = await ask(stream=True)
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0)
    assert session.holdings() == {}


async def test_errors(over_prefix: CtxCacheLLM, engine: Scripted) -> None:
    """Errors have LiteLLM's classes, and the error of this package as the cause."""
    for error, kind in (
        (RateLimitError("slow", status=429, retry_after=99), litellm.RateLimitError),
        (BadRequestError("no", status=400), litellm.BadRequestError),
        (InternalServerError("it broke", status=500), litellm.InternalServerError),
    ):
        engine.line = [[error]] * 3
        with pytest.raises(kind) as failed:
            await ask()
        assert type(failed.value.__cause__) is type(error)
    with pytest.raises(litellm.NotFoundError, match="model must be one of ctxcache/manual, got other"):
        await ask("ctxcache/other")


async def test_no_answer(provide: Callable[..., CtxCacheLLM], caplog: pytest.LogCaptureFixture) -> None:
    """No connection, or no time, has a class of its own; LiteLLM's log shows no key."""
    caplog.set_level("DEBUG")
    key = "sk-very-secret-0123456789"
    async with AsyncSession(key, "http://127.0.0.1:9/v1", retry=0) as session:
        provide(manual=Prefix(session, model=MODEL, messages=[system(MANUAL)]))
        with pytest.raises(litellm.APIConnectionError) as failed:
            await ask()
    assert key not in f"{failed.value!r} {failed.value.__cause__!r} {caplog.text}"


async def test_a_timeout(over_prefix: CtxCacheLLM, gateway: Gateway, prefix: Prefix) -> None:
    """A call's own `timeout` is the time for the whole call."""
    await prefix.warm()
    with pytest.raises(litellm.Timeout):
        await ask(timeout=1e-9)


def test_only_contexts() -> None:
    """Only prefixes and conversations are provided."""
    wrong: Any = {"manual": "a prefix"}
    with pytest.raises(InvalidInputError, match="must be a Prefix or a Conversation"):
        CtxCacheLLM(wrong)


# --- a conversation


async def test_a_conversation_takes_the_new_turn(
    over_conversation: CtxCacheLLM, conversation: Conversation, engine: Scripted
) -> None:
    """The new turn alone is sent, whether the caller sends the history or not."""
    beginning = [{"role": "system", "content": "You are a friendly agent."}]
    first = await ask("ctxcache/chat", [*beginning, *USER])
    said = [*beginning, *USER, first.choices[0].message.model_dump()]
    await ask("ctxcache/chat", [*said, {"role": "user", "content": "Again"}])
    await read("ctxcache/chat", [{"role": "user", "content": "And again"}])
    assert [turn.answer for turn in conversation.transcript] == ["echo: Hello", "echo: Again", "echo: And again"]
    assert engine.asked == [("user", "And again")]


@pytest.mark.parametrize(
    "messages",
    [
        [*USER, {"role": "assistant", "content": "another answer"}, *USER],
        [{"role": "system", "content": "Another beginning."}, *USER],
        [{"role": "system", "content": "You are a friendly agent."}],
    ],
)
async def test_a_conversation_refuses_other_histories(
    over_conversation: CtxCacheLLM, engine: Scripted, messages: Any
) -> None:
    """Another history or beginning, or no new turn, is a bad request, and nothing is sent."""
    with pytest.raises(litellm.BadRequestError, match="messages must be"):
        await ask("ctxcache/chat", messages)
    assert engine.prompts == []


@pytest.mark.parametrize("in_doubt", ["raise", "drop", "keep"])
async def test_a_doubtful_turn_is_not_repeated(
    provide: Callable[..., CtxCacheLLM], session: AsyncSession, engine: Scripted, in_doubt: Any
) -> None:
    """Neither LiteLLM's retries nor its router ask a question again that may have been answered."""
    chat = Conversation(session, model=MODEL, messages=[system("x")], in_doubt=in_doubt)
    provide(chat=chat)
    engine.line = [[InternalServerError("it broke", status=500)]] * 9
    with pytest.raises(litellm.BadRequestError, match="outcome") as failed:
        await ask("ctxcache/chat", num_retries=3)
    assert len(engine.prompts) == 1
    assert isinstance(failed.value.__cause__, OutcomeUnknownError | None)
    await chat.resync()
    params = {"model": "ctxcache/chat"}
    router = litellm.Router([{"model_name": "chat", "litellm_params": params}], num_retries=3, retry_after=0)
    with pytest.raises(litellm.BadRequestError):
        await router.acompletion(model="chat", messages=USER)
    assert len(engine.prompts) == 2


async def test_half_a_turn_is_not_repeated(
    over_conversation: CtxCacheLLM, conversation: Conversation, engine: Scripted
) -> None:
    """A streamed turn that breaks off is a bad request, after the pieces that came; the turn is unfinished."""
    engine.line = [["one ", InternalServerError("it broke", status=500)]] * 9
    router = litellm.Router(
        [{"model_name": "chat", "litellm_params": {"model": "ctxcache/chat"}}], num_retries=3, retry_after=0
    )
    chunks = []
    with pytest.raises(litellm.BadRequestError, match="outcome"):
        async for chunk in await router.acompletion(model="chat", messages=USER, stream=True, num_retries=3):
            chunks.append(chunk)
    assert len(engine.prompts) == 1
    assert text_of(chunks) == "one "
    assert [turn.finished for turn in conversation.transcript] == [False]


async def test_calls_in_doubt_are_forgotten(
    provide: Callable[..., CtxCacheLLM], session: AsyncSession, engine: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the calls in doubt the last ones are remembered, so that the memory has a bound."""
    monkeypatch.setattr("ctxcache.integrations.litellm._REMEMBERED", 1)
    provide(chat=Conversation(session, model=MODEL, messages=[system("x")], in_doubt="drop"))
    engine.line = [[InternalServerError("it broke", status=500)]] * 3
    for id_ in ("one", "two", "two", "one"):
        with pytest.raises(litellm.BadRequestError):
            await ask("ctxcache/chat", litellm_call_id=id_)
    assert len(engine.prompts) == 3


# --- without asyncio


async def test_blocking_calls_from_a_thread(over_prefix: CtxCacheLLM, prefix: Prefix) -> None:
    """A thread may block on a session of a running loop; the loop's own thread may not."""
    await prefix.warm()
    answer = await asyncio.to_thread(litellm.completion, model="ctxcache/manual", messages=USER)
    assert answer.choices[0].message.content == "echo: Hello"
    with pytest.raises(litellm.BadRequestError, match="await"):
        litellm.completion(model="ctxcache/manual", messages=USER)


async def test_blocking_calls_first(gateway: Gateway, provide: Callable[..., CtxCacheLLM], engine: Scripted) -> None:
    """If the first call blocks, the session lives in a thread, which other loops reach and `close` ends."""
    session = AsyncSession(gateway.api_key, gateway.base_url)
    other = Prefix(AsyncSession("unused", gateway.base_url), model=MODEL, messages=[system(MANUAL)])
    provider = provide(manual=Prefix(session, model=MODEL, messages=[system(MANUAL)]), other=other)

    def block() -> tuple[Any, list[Any]]:
        answer = litellm.completion(model="ctxcache/manual", messages=USER)
        return answer, list(litellm.completion(model="ctxcache/manual", messages=USER, stream=True))

    answer, chunks = await asyncio.to_thread(block)
    assert answer.choices[0].message.content == text_of(chunks) == "echo: Hello"
    assert (await ask()).choices[0].message.content == text_of(await read()) == "echo: Hello"
    provider.close()
    assert (session.closed, other.session.closed) == (True, False)
    assert "ctxcache" not in [thread.name for thread in threading.enumerate()]


def test_a_loop_that_ended() -> None:
    """A session whose loop has ended is refused by name."""

    async def first() -> CtxCacheLLM:
        async with Gateway() as gateway:
            session = AsyncSession(gateway.api_key, gateway.base_url)
            prefix = Prefix(session, model=MODEL, messages=[system(MANUAL)])
            await prefix.warm()
            await session.aclose()
            return CtxCacheLLM({"manual": prefix})

    provider = asyncio.run(first())
    litellm.custom_provider_map = [{"provider": "ctxcache", "custom_handler": provider}]
    try:
        with pytest.raises(litellm.BadRequestError, match="does not run any more"):
            litellm.completion(model="ctxcache/manual", messages=USER)
    finally:
        litellm.custom_provider_map = []
        provider.close()
