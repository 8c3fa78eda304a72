"""A `Conversation` behind a chat model: each turn is asked once, whatever lists and retries its callers bring."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache import (
    AsyncSession,
    Conversation,
    InvalidInputError,
    OutcomeUnknownError,
    StreamInterruptedError,
    TurnInDoubtError,
    assistant,
    system,
    tool,
    user,
)

from ...hostile import CONTEXT, RESET, SSE, Hostile, answer, chunk, pieces
from .conftest import KEY, MODEL, Served

pytest.importorskip("langchain_core")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool as as_tool

from ctxcache.integrations.langchain import ChatCtxCache
from ctxcache.integrations.langchain.turns import new_turn


@pytest.fixture
async def conversation(served: Served) -> AsyncIterator[Conversation]:
    """A conversation with the gateway."""
    async with AsyncSession(KEY, served.base_url) as session:
        yield Conversation(session, model=MODEL, messages=[system("Be brief.")])


def asked(served: Served) -> list[list[str]]:
    """The texts of the questions that reached the service."""
    return [[message.text for message in prompt.question] for prompt in served.engine.prompts]


async def test_the_new_turn_alone(served: Served, conversation: Conversation) -> None:
    """Each call is one turn; the service has the history."""
    model = ChatCtxCache(conversation=conversation)
    await model.ainvoke("one")
    assert [chunk.text async for chunk in model.astream("two")]
    await asyncio.to_thread(model.invoke, [HumanMessage("three")])
    assert [[text] for (text,) in asked(served)] == [["one"], ["two"], ["three"]]
    assert [turn.answer for turn in conversation.transcript] == ["echo: one", "echo: two", "echo: three"]


async def test_the_whole_history(served: Served, conversation: Conversation) -> None:
    """With the history in front, with or without the system message, only the new turn is sent."""
    model = ChatCtxCache(conversation=conversation)
    history: list[Any] = [SystemMessage("Be brief.")]
    for question in ("one", "two", "three"):
        history.append(HumanMessage(question))
        history.append(await model.ainvoke(history))
    assert asked(served) == [["one"], ["two"], ["three"]]
    await model.ainvoke([*history[1:], HumanMessage("four")])
    trimmed = [AIMessage("echo: three"), HumanMessage("four"), AIMessage("echo: four"), HumanMessage("five")]
    await model.ainvoke([SystemMessage("Be brief."), *trimmed])
    assert asked(served)[3:] == [["four"], ["five"]]


async def test_an_agent(served: Served, conversation: Conversation) -> None:
    """The loop of an agent, which passes all its messages each time, asks and brings results once."""

    @as_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ChatCtxCache(conversation=conversation).bind_tools([add])
    messages: list[Any] = [HumanMessage("add 3 and 4")]
    answer = await model.ainvoke(messages)
    messages += [answer, add.invoke(answer.tool_calls[0])]
    answer = await model.ainvoke(messages)
    assert answer.text == "done: 7"
    await model.ainvoke([*messages, answer, HumanMessage("thanks")])
    assert asked(served) == [["add 3 and 4"], ["7"], ["thanks"]]


async def test_another_history(served: Served, conversation: Conversation) -> None:
    """A history that the conversation does not have is refused, and nothing is sent."""
    model = ChatCtxCache(conversation=conversation)
    await model.ainvoke("one")
    for messages in (
        [HumanMessage("one"), AIMessage("another answer"), HumanMessage("two")],
        [HumanMessage("zero"), AIMessage("echo: one"), HumanMessage("two")],
        [SystemMessage("Be long."), HumanMessage("one"), AIMessage("echo: one"), HumanMessage("two")],
        [ToolMessage("7", tool_call_id="x"), AIMessage("echo: one"), HumanMessage("two")],
        [HumanMessage("zero"), AIMessage("echo: zero"), HumanMessage("one"), AIMessage("echo: one"), HumanMessage("2")],
    ):
        with pytest.raises(InvalidInputError, match="messages must be the new turn alone, or the conversation so far"):
            await model.ainvoke(messages)
    with pytest.raises(InvalidInputError, match="a list that ends with the new turn"):
        await model.ainvoke([HumanMessage("one"), AIMessage("echo: one")])
    assert asked(served) == [["one"]]


async def test_system_messages_are_not_repeated(served: Served, conversation: Conversation) -> None:
    """The conversation's own system message, which a prompt template repeats, is not sent; another one is."""
    model = ChatCtxCache(conversation=conversation)
    await model.ainvoke([SystemMessage("Be brief."), HumanMessage("one")])
    await model.ainvoke([SystemMessage("Be brief."), HumanMessage("two")])
    await model.ainvoke([SystemMessage("Be kind."), HumanMessage("three")])
    assert asked(served) == [["one"], ["two"], ["Be kind.", "three"]]
    assert new_turn(conversation, (system("Be brief."),)) == (system("Be brief."),)


async def test_tool_calls_are_compared_as_data(conversation: Conversation) -> None:
    """Arguments that a framework wrote anew are the same call; others are another."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    again = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    broken = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{x"}}
    held = Conversation(
        conversation.session, model=MODEL, messages=[user("q"), assistant(None, [call]), tool("1", tool_call_id="c")]
    )
    result = tool("1", tool_call_id="c")
    question = (user("q"), assistant(None, [again]), result, assistant("a"), user("next"))
    with pytest.raises(InvalidInputError):
        new_turn(held, question)  # there is no answer "a"
    held = Conversation(conversation.session, model=MODEL, messages=[user("q"), assistant(None, [call])])
    assert new_turn(held, (user("q"), assistant(None, [again]), result)) == (result,)
    with pytest.raises(InvalidInputError):
        new_turn(held, (user("q"), assistant(None, [broken]), result))


async def test_a_cached_answer_is_no_turn(served: Served, conversation: Conversation) -> None:
    """LangChain's global cache is not asked: a turn with the same words is a turn."""
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache

    set_llm_cache(InMemoryCache())
    try:
        model = ChatCtxCache(conversation=conversation)
        await model.ainvoke("again")
        await model.ainvoke("again")
    finally:
        set_llm_cache(None)
    assert asked(served) == [["again"], ["again"]]


@pytest.fixture
def doubtful(hostile: Hostile, session_for: Callable[..., AsyncSession]) -> Conversation:
    """A conversation with the hostile server, which makes contexts."""
    hostile.plays([answer(CONTEXT)])
    return Conversation(session_for(), model="m", messages=[system("Be brief.")])


def retrying(model: ChatCtxCache) -> Any:
    """The model as LangChain repeats its calls, whatever the error, without waits."""
    return model.with_retry(wait_exponential_jitter=False, stop_after_attempt=3)


async def test_retries_do_not_repeat_a_turn_in_doubt(doubtful: Conversation, hostile: Hostile) -> None:
    """A turn whose reply was lost is sent once; the retries get an error that tells of the first."""
    hostile.plays([RESET])
    with pytest.raises(TurnInDoubtError) as refused:
        await retrying(ChatCtxCache(conversation=doubtful)).ainvoke("Hello")
    assert isinstance(refused.value.cause, OutcomeUnknownError)
    assert len(hostile.posts) == 2  # the create and one chat


async def test_retries_do_not_repeat_half_an_answer(doubtful: Conversation, hostile: Hostile) -> None:
    """A streamed answer that broke off raises; its question is sent again only once the turn was dropped."""
    model = ChatCtxCache(conversation=doubtful, streaming=True)
    hostile.plays([SSE, *pieces(chunk("Once")), RESET])
    with pytest.raises(TurnInDoubtError, match="the last turn asked the same, and its answer broke off"):
        await retrying(model).ainvoke("A story")
    assert len(hostile.posts) == 2
    hostile.plays([answer(CONTEXT)], [answer()])
    await doubtful.resync()
    assert (await ChatCtxCache(conversation=doubtful).ainvoke("A story")).text == "Hi"


async def test_half_an_answer_is_not_whole(doubtful: Conversation, hostile: Hostile) -> None:
    """A stream that breaks off gives the text and raises: no chunk says that the answer ended."""
    hostile.plays([SSE, *pieces(chunk("Once"), chunk(" upon")), RESET])
    chunks = []
    with pytest.raises(StreamInterruptedError):
        async for each in ChatCtxCache(conversation=doubtful).astream("A story"):
            chunks.append(each)
    assert "".join(each.text for each in chunks) == "Once upon"
    assert not any(each.chunk_position or each.response_metadata.get("finish_reason") for each in chunks)
