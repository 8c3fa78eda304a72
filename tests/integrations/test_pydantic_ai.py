"""Pydantic AI's agents over a real gateway."""

import asyncio
import types
import warnings
from typing import Any

import pytest

from ctxcache import (
    UNSET,
    APIStatusError,
    AsyncSession,
    BadRequestError,
    Conversation,
    FunctionCall,
    InternalServerError,
    InvalidInputError,
    OutcomeUnknownError,
    Prefix,
    RateLimitError,
    StreamInterruptedError,
    ToolCall,
    TurnInDoubtError,
    system,
    user,
)
from ctxcache.gateway import Gateway, Piece

from .conftest import MANUAL, MODEL, Scripted

pytest.importorskip("pydantic_ai")

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, CachePoint, ImageUrl, NativeOutput, PromptedOutput, ToolReturn
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import (
    DocumentUrl,
    ModelRequest,
    ModelResponse,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.settings import ToolOrOutput
from pydantic_ai.tools import ToolDefinition

from ctxcache.integrations.pydantic_ai import CtxCacheModel


class City(BaseModel):
    """An output."""

    name: str
    rain: bool


def call(name: str, arguments: str, id_: str = "call_1") -> Piece:
    """A piece with a whole tool call."""
    return Piece(tool_calls=[ToolCall(id=id_, function=FunctionCall(name=name, arguments=arguments))])


def fragments(*pieces: dict[str, Any]) -> list[Piece]:
    """Pieces with fragments of tool calls."""
    return [Piece(tool_calls=[piece]) for piece in pieces]


def weather(agent: "Agent[None, Any]") -> list[str]:
    """Give an agent a tool; returns the cities asked for."""
    cities: list[str] = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Tell the weather."""
        cities.append(city)
        return f"Rain in {city}."

    return cities


# --- a prefix


async def test_a_prefix_takes_the_whole_run(prefix: Prefix, engine: Scripted) -> None:
    """A run's messages follow the prefix, system prompt and instructions first; the usage has the cached tokens."""
    agent = Agent(CtxCacheModel(prefix), system_prompt="Be brief.", instructions="Be kind.")
    first = await agent.run("How long?")
    assert first.output == "echo: How long?"
    assert engine.asked == [("system", "Be brief."), ("system", "Be kind."), ("user", "How long?")]
    assert first.usage.cache_read_tokens > 100
    assert first.usage.input_tokens > first.usage.cache_read_tokens
    response = first.all_messages()[-1]
    assert isinstance(response, ModelResponse)
    assert (response.finish_reason, response.model_name, response.provider_name) == ("stop", MODEL, "ctxcache")
    await agent.run("And then?", message_history=first.all_messages())
    said = [("user", "How long?"), ("assistant", "echo: How long?"), ("user", "And then?")]
    assert [message for message in engine.asked if message[0] != "system"] == said


async def test_tools(prefix: Prefix, engine: Scripted) -> None:
    """A tool call is run, and the result sent with the call's id and arguments."""
    agent = Agent(CtxCacheModel(prefix))
    cities = weather(agent)
    engine.line = [[Piece(reasoning="hm"), Piece(text="Let me see."), call("get_weather", '{"city": "Delft"}')]]
    result = await agent.run("Umbrella?")
    assert (result.output, cities) == ("echo: Rain in Delft.", ["Delft"])
    _, answer, tool = engine.prompts[-1].question
    assert answer.extra["tool_calls"][0]["id"] == tool.extra["tool_call_id"] == "call_1"
    assert answer.content == "Let me see."
    request = engine.prompts[0].request
    assert request.tools is not None
    assert request.tools[0]["function"]["description"] == "Tell the weather."
    assert request.tool_choice == "auto"
    parts = [type(part) for part in result.all_messages()[1].parts]
    assert parts == [ThinkingPart, TextPart, ToolCallPart]


@pytest.mark.parametrize("streamed", [False, True])
async def test_output_tools(prefix: Prefix, engine: Scripted, streamed: bool) -> None:
    """A structured output is a tool that the model has to call; wrong arguments are asked for again."""
    agent: Agent[None, City] = Agent(CtxCacheModel(prefix), output_type=City)
    engine.line = [
        [call("final_result", '{"name": "Delft", "rain": "perhaps"}')],
        [call("final_result", '{"name": "Delft", "rain": true}', "call_2")],
    ]
    if streamed:
        with pytest.raises(Exception, match="validation"):  # a stream is not repeated
            async with agent.run_stream("Rain?") as stream:
                await stream.get_output()
        async with agent.run_stream("Rain?") as stream:
            output = await stream.get_output()
    else:
        output = (await agent.run("Rain?")).output
        assert engine.asked[-1][0] == "tool"
    assert output == City(name="Delft", rain=True)
    assert engine.prompts[-1].request.tool_choice == "required"


async def test_native_and_prompted_output(prefix: Prefix, engine: Scripted) -> None:
    """Native output is a `response_format`; prompted output is asked for in the instructions."""
    answer = ['{"name": "Delft", ', '"rain": true}']
    engine.line = [answer, answer]
    native = await Agent(CtxCacheModel(prefix), output_type=NativeOutput(City, description="A city")).run("Rain?")
    sent: Any = engine.prompts[-1].request.response_format
    assert sent["json_schema"]["schema"]["properties"].keys() == {"name", "rain"}
    assert sent["json_schema"]["description"].startswith("A city")
    prompted = await Agent(CtxCacheModel(prefix), output_type=PromptedOutput(City)).run("Rain?")
    assert native.output == prompted.output == City(name="Delft", rain=True)
    assert engine.prompts[-1].request.response_format == {"type": "json_object"}
    assert "rain" in engine.asked[0][1]


async def test_settings(prefix: Prefix, engine: Scripted) -> None:
    """Settings become parameters; the rest is refused by name before anything is sent."""
    agent = Agent(CtxCacheModel(prefix, settings={"temperature": 0.5}))
    settings: Any = {"max_tokens": 9, "stop_sequences": ["END"], "seed": 7, "thinking": "high", "max_retries": 0}
    await agent.run("x", model_settings={**settings, "timeout": 30.0, "extra_body": {"top_k": 3}})
    request = engine.prompts[-1].request
    assert (request.temperature, request.max_tokens, request.stop) == (0.5, 9, ("END",))
    assert request.extra == {"seed": 7, "top_k": 3}
    assert request.thinking == {"type": "enabled"}
    for bad, error in (({"openai_reasoning_effort": "low"}, UserError), ({"temperature": 9.0}, InvalidInputError)):
        wrong: Any = bad
        with pytest.raises(error, match=next(iter(bad))):
            await agent.run("x", model_settings=wrong)
    assert len(engine.prompts) == 1


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        ("none", set(), UNSET),
        ("required", {"get_weather", "other"}, "required"),
        (["other"], {"other"}, "required"),
        (ToolOrOutput(["get_weather"]), {"get_weather"}, "auto"),
    ],
)
async def test_tool_choice(prefix: Prefix, engine: Scripted, choice: Any, tools: set[str], sent: Any) -> None:
    """A choice of tools leaves out the others."""
    await request_with(prefix, choice)
    request = engine.prompts[-1].request
    assert {tool["function"]["name"] for tool in request.tools or ()} == tools
    assert request.tool_choice == sent


async def request_with(prefix: Prefix, choice: Any) -> None:
    """Make a request with two tools, and a choice of them."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    tools = [ToolDefinition(name="get_weather", parameters_json_schema=schema)]
    tools += [ToolDefinition(name="other", parameters_json_schema=schema, strict=True)]
    settings: Any = {"tool_choice": choice}
    asked = [ModelRequest([UserPromptPart("x")])]
    await CtxCacheModel(prefix).request(asked, settings, ModelRequestParameters(function_tools=tools))


async def test_an_unknown_tool_is_not_chosen(prefix: Prefix) -> None:
    """A tool that the agent has not is refused by name."""
    with pytest.raises(UserError, match="nothing_like_it"):
        await request_with(prefix, ["nothing_like_it"])


async def test_content(prefix: Prefix, engine: Scripted) -> None:
    """Texts and images are sent as parts; what cannot be sent is refused by name."""
    image = BinaryContent(b"\x89PNG", media_type="image/png")
    agent = Agent(CtxCacheModel(prefix))
    await agent.run(["Look:", TextContent("at"), CachePoint(), ImageUrl("https://example.com/a.png"), image])
    content: Any = engine.prompts[-1].question[-1].content
    assert [part["type"] for part in content] == ["text", "text", "image_url", "image_url"]
    assert content[3]["image_url"]["url"].startswith("data:image/png;base64,")
    with pytest.raises(UserError, match="DocumentUrl"):
        await agent.run([DocumentUrl("https://example.com/a.pdf")])

    @agent.tool_plain
    def draw() -> ToolReturn[Any]:
        return ToolReturn("see", content=["the picture", image])

    @agent.tool_plain
    def photo() -> BinaryContent:
        return image

    engine.line = [[call("draw", "{}"), call("photo", "", "call_2")]]
    await agent.run("Draw.")
    roles = [message.role for message in engine.prompts[-1].question]
    assert roles.count("tool") == 2
    assert "image_url" in [part["type"] for message in engine.prompts[-1].question[4:] for part in message.content]  # type: ignore[index,union-attr]


async def test_direct_requests(prefix: Prefix, engine: Scripted) -> None:
    """A request without an agent has its instructions, too; an answer without anything is not sent."""
    history = [
        ModelRequest([UserPromptPart("a")]),
        ModelResponse([]),
        ModelRequest([UserPromptPart("b")], instructions="Be kind."),
    ]
    await model_request(CtxCacheModel(prefix), history)
    assert engine.asked == [("system", "Be kind."), ("user", "a"), ("user", "b")]


async def test_retries_of_old_histories(prefix: Prefix, engine: Scripted) -> None:
    """A retry is the result of its call, or the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions have other parts for that
        from pydantic_ai.messages import RetryPromptPart

        parts = [RetryPromptPart("again", tool_name="a", tool_call_id="call_1"), RetryPromptPart("once more")]
    call_of_a = ModelResponse([ToolCallPart("a", {}, "call_1")])
    asked = ModelRequest([UserPromptPart("x")])
    await CtxCacheModel(prefix).request([asked, call_of_a, ModelRequest(parts)], None, ModelRequestParameters())
    assert [role for role, _ in engine.asked] == ["user", "assistant", "tool", "user"]


async def test_parts_that_cannot_be_sent(prefix: Prefix) -> None:
    """A part of a kind that the service does not know is refused by name."""
    strange: Any = types.SimpleNamespace(part_kind="speech")
    with pytest.raises(UserError, match="speech"):
        await CtxCacheModel(prefix).request([ModelRequest([strange])], None, ModelRequestParameters())


async def test_only_contexts() -> None:
    """Only a prefix or a conversation will do."""
    wrong: Any = "a prefix"
    with pytest.raises(InvalidInputError, match="context must be a Prefix or a Conversation"):
        CtxCacheModel(wrong)


# --- streams


async def test_a_stream(prefix: Prefix, engine: Scripted) -> None:
    """A stream has its text piece by piece, then its usage and finish reason."""
    agent = Agent(CtxCacheModel(prefix))
    engine.line = [["one ", "two ", "three"]]
    async with agent.run_stream("Count.") as stream:
        texts = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
    assert texts == ["one ", "two ", "three"]
    assert stream.usage.cache_read_tokens > 100
    response = stream.all_messages()[-1]
    assert isinstance(response, ModelResponse)
    assert (response.finish_reason, response.provider_name, response.provider_url) == ("stop", "ctxcache", None)


async def test_streamed_thinking(prefix: Prefix, engine: Scripted) -> None:
    """The reasoning of a stream is a part of its own."""
    engine.line = [[Piece(reasoning="h"), Piece(reasoning="m"), Piece(text="yes")]]
    async with Agent(CtxCacheModel(prefix)).run_stream("x") as stream:
        await stream.get_output()
    assert [part.content for part in stream.all_messages()[-1].parts] == ["hm", "yes"]  # type: ignore[union-attr]


async def test_a_stream_without_usage(session: AsyncSession) -> None:
    """A stream may have no usage, and further replies, which are not read."""
    prefix = Prefix(
        session,
        model=MODEL,
        messages=[system(MANUAL)],
        chat_defaults={"stream_options": {"include_usage": False}, "n": 2},
    )
    async with Agent(CtxCacheModel(prefix)).run_stream("x") as stream:
        assert await stream.get_output() == "echo: x"
    assert stream.usage.input_tokens == 0


ODD = [
    ([{"index": 0, "id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Delft"}}}], 1),
    ([{"index": "0", "id": "call_1", "function": {"name": "get_weather", "arguments": '{"city":"Delft"}'}}], 1),
    ([{"index": 0, "function": {"name": "get_weather", "arguments": '{"city":"Delft"}'}}], 1),
    (
        [
            {"index": 0, "id": "call_1", "function": {"name": "get_wea", "arguments": ""}},
            {"index": 0, "function": {"name": "ther", "arguments": '{"city":'}},
            {"index": 0, "function": {"arguments": '"Delft"}'}},
        ],
        1,
    ),
    (
        [
            {"index": 0, "id": "call_1", "function": {"name": "get_weather", "arguments": '{"city":'}},
            {"index": 0, "function": {"arguments": '"Delft"}'}},
            {"index": 1, "id": "call_2", "function": {"name": "get_weather", "arguments": '{"city":"Delft"}'}},
        ],
        2,
    ),
]


@pytest.mark.parametrize(("pieces", "calls"), ODD)
async def test_streamed_tool_calls(prefix: Prefix, engine: Scripted, pieces: list[dict[str, Any]], calls: int) -> None:
    """Tool calls come whole out of fragments, those of odd servers included."""
    agent = Agent(CtxCacheModel(prefix))
    cities = weather(agent)
    engine.line = [fragments(*pieces)]
    async with agent.run_stream("Umbrella?") as stream:
        output = await stream.get_output()
    assert (output, cities) == ("echo: Rain in Delft.", ["Delft"] * calls)


async def test_half_a_stream_is_an_error(prefix: Prefix, engine: Scripted) -> None:
    """A stream that breaks off raises, and gives no output."""
    agent = Agent(CtxCacheModel(prefix))
    engine.line = [["one ", "two ", InternalServerError("it broke", status=500)]]
    texts = []
    with pytest.raises(ModelAPIError) as failed:
        async with agent.run_stream("Count.") as stream:
            async for text in stream.stream_text(delta=True, debounce_by=None):
                texts.append(text)
    assert texts == ["one ", "two "]
    assert failed.value.__cause__.partial.text == "one two "  # type: ignore[union-attr]


async def test_leaving_a_stream(prefix: Prefix, session: AsyncSession, engine: Scripted) -> None:
    """A stream that is left, or cancelled, lets go of its connection."""
    agent = Agent(CtxCacheModel(prefix))
    engine.line = [["one ", *["more "] * 50]]
    async with agent.run_stream("Count.") as stream:
        async for _ in stream.stream_text(delta=True, debounce_by=None):
            break
        await stream.cancel()
    assert session.holdings() == {}


# --- a conversation


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_takes_the_new_turn(conversation: Conversation, engine: Scripted, streamed: bool) -> None:
    """Each request carries the new turn alone, with or without the history, tool results included."""
    agent = Agent(CtxCacheModel(conversation))
    weather(agent)
    engine.line = [[call("get_weather", '{ "city" : "Delft" }')]]
    if streamed:
        async with agent.run_stream("Umbrella?") as stream:
            await stream.get_output()
        history = stream.all_messages()
    else:
        history = (await agent.run("Umbrella?")).all_messages()
    assert engine.asked == [("tool", "Rain in Delft.")]
    await agent.run("Sure?", message_history=history)
    assert engine.asked == [("user", "Sure?")]
    await agent.run("Really?")
    assert engine.asked == [("user", "Really?")]
    assert [turn.answer for turn in conversation.transcript][1:] == [
        "echo: Rain in Delft.",
        "echo: Sure?",
        "echo: Really?",
    ]
    assert len(engine.prompts[-1].context) == len(conversation.messages) - 2


async def test_a_conversation_refuses_what_does_not_fit(conversation: Conversation, engine: Scripted) -> None:
    """Other histories, instructions and system prompts are refused by name, and nothing is sent."""
    model = CtxCacheModel(conversation)
    other = [ModelRequest([UserPromptPart("a")]), ModelResponse([TextPart("b")])]
    with pytest.raises(UserError, match="message_history must be left out"):
        await Agent(model).run("x", message_history=other)
    with pytest.raises(UserError, match="instructions must be left out"):
        await Agent(model, instructions="Be kind.").run("x")
    with pytest.raises(UserError, match="system_prompt must be left out"):
        await Agent(model, system_prompt="Be kind.").run("x")
    with pytest.raises(UserError, match="must be a new turn"):
        await model_request(model, other)
    assert engine.prompts == []
    assert conversation.transcript == ()


async def test_wrong_arguments_in_a_history(conversation: Conversation, engine: Scripted) -> None:
    """A call whose arguments are not JSON is the same call in the history, and is asked for again."""
    agent = Agent(CtxCacheModel(conversation), retries=3)
    cities = weather(agent)
    engine.line = [
        [call("get_weather", '{"city": ')],
        [call("get_weather", "[1]", "call_2")],
        [call("get_weather", '{"city": "Delft"}', "call_3")],
    ]
    result = await agent.run("x")
    assert cities == ["Delft"]
    assert result.output == "echo: Rain in Delft."


async def test_a_doubtful_turn_is_not_repeated(conversation: Conversation, engine: Scripted) -> None:
    """A turn with unknown outcome is raised as it is: no fallback asks again, and the next run is refused."""
    engine.line = [[InternalServerError("it broke", status=500)]]
    agent = Agent(FallbackModel(CtxCacheModel(conversation), TestModel()))
    with pytest.raises(OutcomeUnknownError):
        await agent.run("x")
    assert len(engine.prompts) == 1
    with pytest.raises(TurnInDoubtError):
        await agent.run("y")
    await conversation.resync()
    assert (await agent.run("y")).output == "echo: y"


async def test_half_a_turn_is_kept_as_half(conversation: Conversation, engine: Scripted) -> None:
    """A turn that breaks off is raised as it is, and recorded as unfinished."""
    engine.line = [["one ", InternalServerError("it broke", status=500)]]
    with pytest.raises((StreamInterruptedError, InternalServerError)):
        async with Agent(CtxCacheModel(conversation)).run_stream("x") as stream:
            await stream.get_output()
    assert [(turn.answer, turn.finished) for turn in conversation.transcript] == [("one ", False)]


# --- errors, and the event loop


async def test_errors(prefix: Prefix, engine: Scripted) -> None:
    """The service's errors have their status; the cause is the error of this package."""
    agent = Agent(CtxCacheModel(prefix))
    for error in (RateLimitError("slow", status=429), BadRequestError("no", status=400)):
        engine.line = [[error]] * 3
        with pytest.raises(ModelHTTPError) as failed:
            await agent.run("x")
        assert failed.value.status_code == error.status
        assert isinstance(failed.value.__cause__, APIStatusError)
        engine.line = []
    fallback = Agent(FallbackModel(CtxCacheModel(prefix), TestModel(custom_output_text="other")))
    engine.line = [[BadRequestError("no", status=400)]]
    assert (await fallback.run("x")).output == "other"


async def test_no_connection(gateway: Gateway) -> None:
    """No answer at all is a `ModelAPIError`, and no key is in it."""
    async with AsyncSession("sk-very-secret", "http://127.0.0.1:9/v1", retry=0) as session:
        agent = Agent(CtxCacheModel(Prefix(session, model=MODEL, messages=[user("x")])))
        with pytest.raises(ModelAPIError) as failed:
            await agent.run("x")
        assert "sk-very-secret" not in f"{failed.value!r} {failed.value.__cause__!r} {agent.model!r}"


def test_run_sync() -> None:
    """`run_sync` works, as often as one likes, with one session."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    gateway = Gateway()
    loop.run_until_complete(gateway.start())
    try:
        session = AsyncSession(gateway.api_key, gateway.base_url)
        agent = Agent(CtxCacheModel(Prefix(session, model=MODEL, messages=[system(MANUAL)])))
        for question in ("one", "two"):
            result = agent.run_sync(question)
            assert result.output.endswith(f"you said: {question}")
            assert result.usage.cache_read_tokens > 100
        loop.run_until_complete(session.aclose())
    finally:
        loop.run_until_complete(gateway.aclose())
        asyncio.set_event_loop(None)
        loop.close()
