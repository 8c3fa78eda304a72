"""Turns with tool calls and tool results: in the transcript, and in a context rebuilt at any moment between."""

import pytest

from ctxcache import BadRequestError, tool, user
from ctxcache.managed.conversation import Conversation

from ...hostile import DONE, answer, event, refusal
from ...hostile import streamed as whole_stream
from .talk import GONE, made, read, said, says, told

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS = [
    {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}},
    {"id": "call-2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Linz"}'}},
]
RESULTS = [tool("rain", tool_call_id="call-1"), {"role": "tool", "tool_call_id": "call-2", "content": "sun"}]


def delta(*fragments, finish=None):
    """A chunk with fragments of tool calls."""
    return event({"choices": [{"index": 0, "delta": {"tool_calls": list(fragments)}, "finish_reason": finish}]})


def calls(how, text=None):
    """An answer that asks for the tool calls, plain or streamed."""
    if how == "ask":
        message = {"content": text, "tool_calls": CALLS}
        return [answer({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})]
    first, second = ({"index": index, **call} for index, call in enumerate(CALLS))
    half = {**first, "function": {"name": "weather", "arguments": '{"city": '}}
    rest = {"index": 0, "function": {"arguments": '"Graz"}'}}
    return [whole_stream(delta(half), delta(rest, second), delta(finish="tool_calls"), DONE)]


async def take_turn(conversation, how, question, **options):
    """Make a turn, plain or streamed."""
    if how == "ask":
        await conversation.ask(question, **options)
    else:
        await read(conversation.stream(question, **options))


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_round_trip(hostile, new, how):
    """The options go with the turns, the results answer the calls, and all of it is in the transcript."""
    hostile.plays(made(), calls(how), says("Take an umbrella"))
    conversation = new()
    await take_turn(conversation, how, "Weather?", tools=[WEATHER], tool_choice="auto", parallel_tool_calls=True)
    [turn] = conversation.transcript
    assert [(call.id, call.json()) for call in turn.tool_calls] == [
        ("call-1", {"city": "Graz"}),
        ("call-2", {"city": "Linz"}),
    ]
    await conversation.ask(RESULTS, tools=[WEATHER])
    first, second = (post.json for post in hostile.posts[1:])
    assert (first["tools"], first["tool_choice"], first["parallel_tool_calls"]) == ([WEATHER], "auto", True)
    assert second["messages"] == [
        {"role": "tool", "content": "rain", "tool_call_id": "call-1"},
        {"role": "tool", "content": "sun", "tool_call_id": "call-2"},
    ]
    assert said(conversation) == [("Weather?", None, True), ("sun", "Take an umbrella", True)]
    assert [message.role for message in conversation.messages] == "system user assistant tool tool assistant".split()


@pytest.mark.parametrize("how", ["ask", "stream"])
@pytest.mark.parametrize("loss", ["expired", "gone", "loaded"])
async def test_the_context_is_lost_before_the_results(hostile, new, clock, how, loss):
    """The rebuilt context ends before the calls; they are sent in front of their results, as they came."""
    hostile.plays(made(), calls(how))
    conversation = new()
    await take_turn(conversation, how, "Weather?")
    if loss == "gone":
        hostile.plays(GONE)
    else:
        clock.advance(3600)
    if loss == "loaded":
        conversation = Conversation.load(new.session, conversation.save(), clock=clock)
    hostile.plays(made("ctx-2"), says("Take an umbrella"), says("Yes"))
    await conversation.ask(RESULTS)
    create, chat = (post.json["messages"] for post in hostile.posts[-2:])
    assert [message["role"] for message in create] == ["system", "user"]
    assert chat[0] == {"role": "assistant", "content": None, "tool_calls": CALLS}
    assert [message.get("tool_call_id") for message in chat[1:]] == ["call-1", "call-2"]
    await conversation.ask("And tomorrow?")
    assert told(hostile)[-1] == ("ctx-2", "u:And tomorrow?")


async def test_the_context_is_lost_after_the_results(hostile, new, clock):
    """The rebuilt context holds question, calls, results, and what came after."""
    hostile.plays(made(), calls("ask", "Let me see"), says("Umbrella"), made("ctx-2"), says("Sun"))
    conversation = new()
    await conversation.ask("Weather?")
    await conversation.ask(RESULTS)
    clock.advance(3600)
    await conversation.ask("And tomorrow?")
    create = hostile.posts[3].json["messages"]
    assert [message["role"] for message in create] == ["system", "user", "assistant", "tool", "tool"]
    assert create[2] == {"role": "assistant", "content": "Let me see", "tool_calls": CALLS}
    assert told(hostile)[4] == ("ctx-2", "a:Umbrella", "u:And tomorrow?")


@pytest.mark.parametrize("text", [None, "Let me see"])
async def test_calls_that_nobody_answered(hostile, new, clock, text):
    """A rebuilt context has no calls without results: a service would refuse the next question behind them."""
    hostile.plays(made(), calls("ask", text), made("ctx-2"), says("Fine"))
    conversation = new()
    await conversation.ask("Weather?")
    clock.advance(3600)
    await conversation.ask("Never mind")
    *_, sent = (post.json["messages"] for post in hostile.posts)
    expected = [] if text is None else [{"role": "assistant", "content": text}]
    assert sent == [*expected, {"role": "user", "content": "Never mind"}]


async def test_refused_results_may_be_sent_again(hostile, new, clock):
    """Results that the service refused leave the calls open, also on a context rebuilt meanwhile."""
    hostile.plays(made(), calls("ask"), [refusal(400, "InvalidParameter")], made("ctx-2"), says("Umbrella"))
    conversation = new()
    await conversation.ask("Weather?")
    with pytest.raises(BadRequestError):
        await conversation.ask(RESULTS[:1])
    clock.advance(3600)
    await conversation.ask(RESULTS)
    assert [message["role"] for message in hostile.posts[-1].json["messages"]] == ["assistant", "tool", "tool"]


async def test_a_short_transcript_cuts_no_round(hostile, new, clock):
    """With `keep_turns=1` a rebuilt context holds the calls to the results, and the question before."""
    hostile.plays(made(), says("Hi"), calls("ask"), says("Umbrella"), made("ctx-2"))
    conversation = new(keep_turns=1)
    for question in ("Hello", "Weather?", RESULTS):
        await conversation.ask(question)
    clock.advance(3600)
    await conversation.warm()
    assert told(hostile)[-1] == ("create", "s:Be brief.", "u:Weather?", "a:None", "t:rain", "t:sun")


async def test_an_answer_s_message_is_a_question_s(hostile, new):
    """A caller may send the calls along: the message of an answer is accepted, with the results behind."""
    hostile.plays(made(), calls("ask"), made("ctx-2"), says("Umbrella"))
    first = await new().ask("Weather?")
    await new().ask([user("Weather?"), first.message, *RESULTS])
    assert [message["role"] for message in hostile.posts[-1].json["messages"]] == "user assistant tool tool".split()
