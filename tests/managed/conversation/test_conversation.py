"""`conversation`: the public face of a session context that looks after itself."""

import asyncio
import json

import pytest

from ctxcache import (
    AsyncSession,
    InvalidInputError,
    Message,
    OutcomeUnknownError,
    Retry,
    Timeouts,
    assistant,
    system,
    user,
)
from ctxcache.gateway import Gateway, ScriptedEngine
from ctxcache.managed.conversation import Conversation
from ctxcache.managed.costs import Prices

from ...hostile import CLOSE, DONE, answer, chunk, event
from ...hostile import streamed as whole_stream
from .talk import GONE, made, read, said, says, told


async def test_created_on_first_use(hostile, new, events):
    """The first turn creates the context; each turn sends the newest question only."""
    hostile.plays(made(), says("Hi"), says("Fine"))
    conversation = new()
    assert (conversation.context, conversation.expires_at, conversation.model) == (None, None, "m")
    assert (await conversation.ask("Hello")).text == "Hi"
    assert (await conversation.ask("And?")).text == "Fine"
    assert told(hostile) == [("create", "s:Be brief."), ("ctx-1", "u:Hello"), ("ctx-1", "u:And?")]
    assert said(conversation) == [("Hello", "Hi", True), ("And?", "Fine", True)]
    assert [m.content for m in conversation.messages] == ["Be brief.", "Hello", "Hi", "And?", "Fine"]
    assert (conversation.context.id, events, conversation.doubtful) == ("ctx-1", [("create", "ctx-1")], None)


async def test_warm(hostile, new):
    """`warm` creates the context once and asks nothing."""
    hostile.plays(made(), says("Hi"))
    conversation = new(ttl=7200, truncation_strategy={"type": "rolling_tokens"})
    assert (await conversation.warm()).id == "ctx-1"
    assert await conversation.warm() is conversation.context
    assert (await conversation.ask("Hello")).text == "Hi"
    assert hostile.posts[0].json == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}],
        "mode": "session",
        "ttl": 7200,
        "truncation_strategy": {"type": "rolling_tokens"},
    }
    assert len(hostile.posts) == 2


@pytest.mark.parametrize(
    ("question", "sent"),
    [
        ("Hi", ["u:Hi"]),
        (system("Hi"), ["s:Hi"]),
        ({"role": "user", "content": "Hi"}, ["u:Hi"]),
        ([assistant("A"), {"role": "user", "content": "B"}], ["a:A", "u:B"]),
        ((user(text) for text in "AB"), ["u:A", "u:B"]),
    ],
    ids=["text", "message", "mapping", "list", "generator"],
)
async def test_questions(hostile, new, question, sent):
    """A string is a user message, a message or mapping is one, a list is sent as it is."""
    hostile.plays(made(), says("Hi"))
    conversation = new()
    await conversation.ask(question)
    assert told(hostile)[1] == ("ctx-1", *sent)
    assert [type(message) for message in conversation.transcript[0].question] == [Message] * len(sent)


async def test_options(hostile, new):
    """Options of a turn go with the turn, and again with it when it is sent on a new context."""
    hostile.plays(made(), GONE, made("ctx-2"), says("Hi"))
    options = {"temperature": 0.5, "max_tokens": 9, "stop": iter(["x", "y"]), "extra_body": {"more": 1}, "n": 1}
    await new().ask("Hello", timeouts=Timeouts(head=3), retry=Retry(attempts=1), **options)
    for number in (1, 3):
        body = hostile.posts[number].json
        assert (body["temperature"], body["max_tokens"], body["stop"], body["more"]) == (0.5, 9, ["x", "y"], 1)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("n", {"n": 2}),
        ("n", {"extra_body": {"n": 2}}),
        ("messages", {"extra_body": {"messages": []}}),
        ("model", {"extra_body": {"model": "x"}}),
        ("extra_body", {"extra_body": 5}),
        ("repeatable", {"repeatable": True}),
        ("serialize", {"serialize": False}),
        ("context_id", {"context_id": "ctx-9"}),
        ("temperature", {"temperature": 3}),
        ("stop", {"stop": []}),
        ("timeouts", {"timeouts": "5"}),
        ("retry", {"retry": -5}),
        ("extra_headers", {"extra_headers": 5}),
        ("question", {"question": 5}),
        ("question", {"question": b"Hi"}),
        ("messages", {"question": []}),
        ("messages", {"question": [5]}),
    ],
)
async def test_refused_before_anything_is_sent(hostile, new, field, options):
    """What a turn cannot have is refused by name, before the context is created."""
    asked = {"question": "Hello", **options}
    with pytest.raises(InvalidInputError, match=field):
        await new().ask(**asked)
    with pytest.raises(InvalidInputError, match=field):
        new().stream(**asked)
    assert hostile.posts == []


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("messages", {"messages": ()}),
        ("messages", {"messages": []}),
        ("messages", {"messages": [assistant("Hi")]}),
        ("messages", {"messages": "Be brief."}),
        ("messages", {"messages": [5]}),
        ("ttl", {"ttl": 5}),
        ("truncation_strategy", {"truncation_strategy": {"type": "other"}}),
        ("keep_turns", {"keep_turns": 0}),
        ("margin", {"margin": -1}),
        ("is_gone", {"is_gone": 5}),
    ],
)
async def test_settings_are_checked(new, field, settings):
    """A setting out of its range is refused by name when the conversation is made; no messages are one."""
    with pytest.raises(InvalidInputError, match=field):
        new(**settings)


def test_the_session_is_checked():
    """Something else than a session is refused."""
    with pytest.raises(InvalidInputError, match="session"):
        Conversation("sk-…", model="m", messages=[system("S")])


async def test_a_bounded_transcript(hostile, new, clock):
    """Of more than `keep_turns` turns the oldest are dropped, and a rebuilt context does not hold them."""
    hostile.plays(made(), *[says(f"{number}!") for number in range(3)], made("ctx-2"))
    conversation = new(keep_turns=2)
    for number in range(3):
        await conversation.ask(f"{number}?")
    assert said(conversation) == [("1?", "1!", True), ("2?", "2!", True)]
    clock.advance(3600)
    await conversation.warm()
    assert told(hostile)[-1] == ("create", "s:Be brief.", "u:1?", "a:1!", "u:2?")


async def test_answers_without_text(hostile, new, clock):
    """An answer of tool calls alone is in the transcript without text, and left out of the rebuild."""
    call = {"index": 0, "message": {"content": None, "tool_calls": [{"id": "t"}]}, "finish_reason": "tool_calls"}
    hostile.plays(made(), [answer({"choices": [call]})], made("ctx-2"), says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    assert said(conversation) == [("1?", None, True)]
    clock.advance(3600)
    await conversation.ask("2?")
    assert told(hostile)[2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "u:2?")]


def counted(prompt, cached, completion):
    """A usage, as the service gives it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def test_usage_and_cost(hostile, new):
    """Creates and turns are counted, streams and interrupted ones among them, and cost what they cost."""
    usage_event = event({"choices": [], "usage": counted(30, 20, 5)})
    hostile.plays(
        made(usage=counted(10, 0, 0)),
        says("Hi", usage=counted(20, 10, 5)),
        [whole_stream(chunk("Yes", finish="stop"), usage_event, DONE)],
    )
    conversation = new()
    await conversation.ask("1?")
    await read(conversation.stream("2?"))
    usage = conversation.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (60, 30, 10)
    cost = conversation.cost(Prices(input=1e6, cached=1e5, output=2e6, storage_per_hour=0))
    assert (cost.calls, round(cost.total, 6), cost.without) == (2, 53.0, 70.0)


async def test_uncached(hostile, new, events, log_lines):
    """A context that shows no cached tokens on a repeat use is reported once, in the log and by the hook."""
    hostile.plays(made(), *[says("Hi", usage=counted(20, 0, 5))] * 4)
    conversation = new()
    for _ in range(4):
        await conversation.ask("1?")
    assert events[1:] == [("uncached", "ctx-1")]
    [line] = log_lines("WARNING")
    assert "ctx-1" in line
    assert "rolling_tokens" in line


async def test_nothing_shows_what_was_said(hostile, new, log_lines, key, clock):
    """Neither the log nor a repr holds content or keys; the log says what happened to which context."""
    hostile.plays(made(), says("secret"), made("ctx-2"), [CLOSE])
    conversation = new([system("secret")])
    await conversation.ask("secret")
    clock.advance(3600)
    with pytest.raises(OutcomeUnknownError) as caught:
        await conversation.ask("secret")
    shown = [
        repr(conversation),
        str(caught.value),
        *(line for level in ("DEBUG", "INFO", "WARNING") for line in log_lines(level)),
    ]
    assert not any("secret" in text or key in text for text in shown)
    assert any("ctx-2: created in place of ctx-1 (expired)" in text for text in log_lines("INFO"))
    assert any("ctx-2" in text and "unknown" in text for text in log_lines("WARNING"))
    assert repr(conversation) == "<Conversation m ctx-2 turns=1>"


@pytest.fixture
async def served(clock, quiet_loop, hooks):
    """A gateway, and a conversation on it, by the same clock."""
    async with (
        Gateway(clock=clock, engine=ScriptedEngine(length=1500)) as gateway,  # more than one read brings
        AsyncSession(gateway.api_key, gateway.base_url, hooks=hooks) as session,
    ):
        greeting = [system("Be brief."), assistant("Hello!")]
        model = "Doubao-1.5-pro-32k"
        yield gateway, session, Conversation(session, model=model, messages=greeting, ttl=3600, clock=clock)


async def test_a_real_conversation(served, clock, events):
    """Over expiries, known or not, broken streams and resyncs, the context holds what the transcript says."""
    gateway, _, conversation = served

    def kept():
        return [(message.role, message.content) for message in gateway.messages(conversation.context.id)]

    def expected():
        return [(message.role, message.content) for message in conversation.messages]

    await conversation.ask("One?")
    assert await read(conversation.stream("Two?"))
    assert kept() == expected()
    clock.advance(3590)  # known: within the margin
    await conversation.ask("Three?")
    assert kept() == expected()
    gateway.expire(conversation.context.id)  # told by the service
    assert await read(conversation.stream("Four?"))
    assert kept() == expected()
    async for chunk_ in conversation.stream("Five?"):
        if chunk_.text:
            break
    await conversation.ask("Six?")
    assert kept() == expected()
    assert [turn.finished for turn in conversation.transcript] == [True] * 4 + [False, True]
    task = asyncio.ensure_future(conversation.ask("Seven?"))
    while json.loads(conversation.save())["doubtful"] is None:  # noqa: ASYNC110  # the turn is nobody's event
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await conversation.resync(keep=True)
    await conversation.ask("Eight?")
    assert kept() == expected()
    assert [event[0] for event in events] == ["create", "expired", "gone", "resync", "resync"]


async def test_a_restart(served, clock):
    """Saved and loaded after every turn, a conversation is the same as one that goes on."""
    gateway, session, conversation = served
    for number in range(6):
        await conversation.ask(f"{number}?")
        clock.advance(2000 * number)
        conversation = Conversation.load(session, conversation.save(), clock=clock)
    await conversation.ask("Last?")
    assert [turn.question[0].content for turn in conversation.transcript] == [*(f"{n}?" for n in range(6)), "Last?"]
    assert gateway.messages(conversation.context.id) == conversation.messages
    assert json.loads(conversation.save())["version"] == 1


async def test_a_ttl_of_0_is_the_one_asked_for(hostile, new, clock):
    """As for a `Prefix`: what the service said counts where it says something."""
    hostile.plays(made(ttl=0))
    conversation = new(ttl=3600)
    await conversation.warm()
    assert conversation.expires_at == clock() + 3600
