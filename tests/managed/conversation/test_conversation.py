"""A conversation: a context that is created and rebuilt, and what is known of each turn afterwards."""

import asyncio
import json
import pickle

import pytest

from ctxcache import (
    AsyncSession,
    BadRequestError,
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    Message,
    OutcomeUnknownError,
    Retry,
    SessionError,
    Timeouts,
    assistant,
    system,
    user,
)
from ctxcache.gateway import Gateway
from ctxcache.managed.conversation import Conversation
from ctxcache.managed.costs import Prices

from ...hostile import CLOSE, DONE, STALL, answer, chunk, event, refusal
from ...hostile import streamed as whole_stream
from .talk import FAILED, GONE, GONE_EVENT, ROLE, made, read, said, says, streams, told

# --- turns ------------------------------------------------------------------------------------------------------------


async def test_created_on_first_use(hostile, new, events):
    """The first turn creates the context; each turn sends the newest question only."""
    hostile.plays(made(), says("Hi"), says("Fine"))
    conversation = new()
    assert (conversation.context, conversation.expires_at) == (None, None)
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
        ("timeouts", {"timeouts": 5}),
        ("retry", {"retry": 5}),
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


# --- what travels -----------------------------------------------------------------------------------------------------


async def test_a_greeting_travels(hostile, new):
    """Initial messages that end with the assistant's are created without it; it goes with the first turn alone."""
    hostile.plays(made(), says("One"), says("Two"))
    conversation = new([system("S"), user("Hi"), assistant("Hello!")])
    await conversation.ask("1?")
    await conversation.ask("2?")
    assert told(hostile) == [("create", "s:S", "u:Hi"), ("ctx-1", "a:Hello!", "u:1?"), ("ctx-1", "u:2?")]


async def test_it_travels_until_it_arrives(hostile, new):
    """What travels goes with the next question as well where the turn was refused."""
    hostile.plays(made(), [refusal(400, "InvalidParameter")], streams("One"), says("Two"))
    conversation = new([system("S"), assistant("Hello!")])
    with pytest.raises(BadRequestError):
        await conversation.ask("0?")
    assert await read(conversation.stream("1?")) == "One"
    await conversation.ask("2?")
    assert [line[1:] for line in told(hostile)[1:]] == [("a:Hello!", "u:0?"), ("a:Hello!", "u:1?"), ("u:2?",)]
    assert said(conversation) == [("1?", "One", True), ("2?", "Two", True)]


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


# --- gone -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_expired_between_turns(hostile, new, clock, events, how):
    """A context known to be expired is rebuilt from the transcript before the turn; the last answer travels."""
    hostile.plays(made(), says("Hi"), says("Fine"), made("ctx-2"), says("Yes") if how == "ask" else streams("Y", "es"))
    conversation = new(margin=100)
    await conversation.ask("1?")
    assert conversation.expires_at == clock.now + 3600
    clock.advance(3499)
    await conversation.ask("2?")  # every use starts the timer anew
    assert conversation.expires_at == clock.now + 3600
    clock.advance(3500)
    if how == "ask":
        await conversation.ask("3?")
    else:
        assert await read(conversation.stream("3?")) == "Yes"
    assert told(hostile)[3:] == [("create", "s:Be brief.", "u:1?", "a:Hi", "u:2?"), ("ctx-2", "a:Fine", "u:3?")]
    assert events == [("create", "ctx-1"), ("expired", "ctx-1", "ctx-2")]
    assert said(conversation)[-1] == ("3?", "Yes", True)
    assert conversation.expires_at == clock.now + 3600


@pytest.mark.parametrize("how", ["ask", "stream", "first event"])
async def test_gone_says_the_service(hostile, new, events, how):
    """Where the service says that the context is gone, it is rebuilt, and the turn sent once on the new one."""
    lost = [whole_stream(GONE_EVENT)] if how == "first event" else GONE
    hostile.plays(made(), says("Hi"), lost, made("ctx-2"), says("Yes") if how == "ask" else streams("Yes"))
    conversation = new()
    await conversation.ask("1?")
    if how == "ask":
        assert (await conversation.ask("2?")).text == "Yes"
    else:
        assert await read(conversation.stream("2?")) == "Yes"
    assert told(hostile)[2:] == [("ctx-1", "u:2?"), ("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:2?")]
    assert events == [("create", "ctx-1"), ("gone", "ctx-1", "ctx-2")]
    assert said(conversation) == [("1?", "Hi", True), ("2?", "Yes", True)]


@pytest.mark.parametrize("how", ["ask", "stream", "first event"])
async def test_never_a_loop(hostile, new, events, how):
    """A new context that is gone as well is an error, after two posts; the next turn makes another one."""
    lost = [whole_stream(GONE_EVENT)] if how == "first event" else GONE
    hostile.plays(made("a"), lost, made("b"), lost, made("c"), says("Hi"))
    conversation = new()
    with pytest.raises(ContextGoneError):
        await (conversation.ask("1?") if how == "ask" else read(conversation.stream("1?")))
    assert [line[0] for line in told(hostile)] == ["create", "a", "create", "b"]
    assert (said(conversation), conversation.doubtful) == ([], None)
    assert (await conversation.ask("1?")).text == "Hi"
    assert events == [("create", "a"), ("gone", "a", "b"), ("gone", "b", "c")]


@pytest.mark.parametrize("how", ["head", "first event"])
async def test_gone_then_gone_otherwise(hostile, new, how):
    """A stream whose first context is gone at the head and the second in the stream, or so, is sent twice in all."""
    both = [GONE, [whole_stream(GONE_EVENT)]]
    first, second = both if how == "head" else both[::-1]
    hostile.plays(made("a"), first, made("b"), second)
    with pytest.raises(ContextGoneError):
        await read(new().stream("1?"))
    assert len(hostile.posts) == 4


async def test_gone_after_a_chunk(hostile, new, events):
    """After a chunk without text the turn is not sent again; nothing was stored, and the next turn rebuilds."""
    hostile.plays(made(), [whole_stream(ROLE, GONE_EVENT)], made("ctx-2"), says("Hi"))
    conversation = new()
    with pytest.raises(ContextGoneError):
        await read(conversation.stream("1?"))
    assert (said(conversation), conversation.doubtful, len(hostile.posts)) == ([], None, 2)
    await conversation.ask("1?")
    assert events[1:] == [("gone", "ctx-1", "ctx-2")]


async def test_gone_in_the_middle(hostile, new, events):
    """After text the turn is unfinished, and the context rebuilt with what was received."""
    hostile.plays(made(), [whole_stream(chunk("Once"), GONE_EVENT)], made("ctx-2"), says("Hi"))
    conversation = new()
    with pytest.raises(ContextGoneError):
        await read(conversation.stream("1?"))
    assert said(conversation) == [("1?", "Once", False)]
    await conversation.ask("2?")
    assert told(hostile)[2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Once", "u:2?")]
    assert events[1:] == [("gone", "ctx-1", "ctx-2")]


async def test_a_failed_rebuild(hostile, new):
    """A rebuild that fails is the turn's error; nothing is lost, and the next turn tries again."""
    hostile.plays(made(), says("Hi"), GONE, [refusal(401)], [refusal(401)], made("ctx-2"), says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    for _ in range(2):
        with pytest.raises(CtxCacheError, match="401"):
            await conversation.ask("2?")
    assert (said(conversation), conversation.doubtful) == ([("1?", "Hi", True)], None)
    await conversation.ask("2?")
    assert told(hostile)[-2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:2?")]


async def test_a_failed_rebuild_of_a_stream(hostile, new):
    """Also where a stream's first event said so."""
    hostile.plays(made(), [whole_stream(GONE_EVENT)], [refusal(401)], made("ctx-2"), says("Hi"))
    conversation = new()
    with pytest.raises(CtxCacheError, match="401"):
        await read(conversation.stream("1?"))
    assert conversation.doubtful is None
    await conversation.ask("1?")


async def test_another_idea_of_gone(hostile, new):
    """`is_gone` decides what says so; by itself, the rest is refused."""
    hostile.plays(made(), [refusal(418, "Teapot")], made("ctx-2"), says("Hi"), GONE)
    conversation = new(is_gone=lambda error: getattr(error, "code", "") == "Teapot")
    assert (await conversation.ask("1?")).text == "Hi"
    with pytest.raises(ContextGoneError):
        await conversation.ask("2?")
    assert (len(hostile.posts), said(conversation)) == (5, [("1?", "Hi", True)])


async def test_a_broken_idea_of_gone(hostile, new, log_lines):
    """An `is_gone` that raises breaks nothing: the service's error is raised, and the turn given back."""
    hostile.plays(made(), GONE, says("Hi"))
    conversation = new(is_gone=lambda error: 1 / 0)
    with pytest.raises(ContextGoneError):
        await conversation.ask("1?")
    assert "is_gone" in log_lines("ERROR")[0]
    assert (await conversation.ask("1?")).text == "Hi"


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ask", "stream", "first event"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidParameter"),
        (401, "AuthenticationError"),
        (403, "AccessDenied"),
        (403, "OperationDenied.InvalidState"),
        (404, "ModelNotOpen"),
        (429, "RateLimitExceeded.X"),
        (429, "QuotaExceeded"),
    ],
)
async def test_refused(hostile, new, how, status, code):
    """An error that proves that the turn did not run changes nothing: the next one goes on, on the same context."""
    error = [whole_stream(event({"error": {"code": code}}))] if how == "first event" else [refusal(status, code)]
    hostile.plays(made(), says("Hi"), error, says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    once = {"retry": Retry(attempts=1)}
    with pytest.raises(CtxCacheError) as caught:
        await (conversation.ask("2?", **once) if how == "ask" else read(conversation.stream("2?", **once)))
    assert "resync" not in str(caught.value)
    assert (said(conversation), conversation.doubtful) == ([("1?", "Hi", True)], None)
    await conversation.ask("3?")
    assert told(hostile)[-1] == ("ctx-1", "u:3?")


# --- doubtful ---------------------------------------------------------------------------------------------------------


UNKNOWN = {
    "500": FAILED,
    "no answer": [CLOSE],
    "half an answer": [answer()[:-5], CLOSE],
    "no JSON": [answer(b"junk")],
}


@pytest.mark.parametrize("script", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("keep", [False, True], ids=["without", "with"])
async def test_outcome_unknown(hostile, new, events, script, keep):
    """A turn whose outcome is unknown is not repeated; the error names the way on, and `resync` takes it."""
    hostile.plays(made(), says("Hi"), script)
    conversation = new()
    await conversation.ask("1?")
    with pytest.raises(OutcomeUnknownError, match=r"resync\(\)") as caught:
        await conversation.ask("2?")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert conversation.doubtful == (user("2?"),)
    assert said(conversation) == [("1?", "Hi", True)]
    for use in (conversation.ask("3?"), read(conversation.stream("3?")), conversation.warm()):
        with pytest.raises(SessionError, match=r"resync\(\)"):
            await use
    assert len(hostile.posts) == 3
    hostile.plays(made("ctx-2"), says("Yes"))
    assert (await conversation.resync(keep=keep)).id == "ctx-2"
    assert conversation.doubtful is None
    await conversation.ask("3?")
    assert events == [("create", "ctx-1"), ("resync", "ctx-1", "ctx-2")]
    if keep:
        assert told(hostile)[3:] == [("create", "s:Be brief.", "u:1?", "a:Hi", "u:2?"), ("ctx-2", "u:3?")]
        assert said(conversation) == [("1?", "Hi", True), ("2?", None, False), ("3?", "Yes", True)]
    else:
        assert told(hostile)[3:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:3?")]
        assert said(conversation) == [("1?", "Hi", True), ("3?", "Yes", True)]


async def test_a_failed_resync(hostile, new):
    """A resync that fails or is cancelled changes nothing, and may be called again."""
    hostile.plays(made(), FAILED, [refusal(401)], [STALL])
    conversation = new()
    with pytest.raises(InternalServerError):
        await conversation.ask("1?")
    with pytest.raises(CtxCacheError, match="401"):
        await conversation.resync(keep=True)
    task = asyncio.ensure_future(conversation.resync())
    await hostile.until(lambda: len(hostile.posts) == 4)
    task.cancel()
    await asyncio.wait([task])
    assert (conversation.doubtful, said(conversation)) == ((user("1?"),), [])
    hostile.plays(made("ctx-2"))
    await conversation.resync(keep=True)
    assert (conversation.doubtful, said(conversation)) == (None, [("1?", None, False)])
    hostile.plays(made("ctx-3"))
    await conversation.resync()
    assert said(conversation) == []


async def test_resync_without_need(hostile, new, events):
    """Where nothing is in doubt, `resync` just makes a context anew; before the first one, it creates it."""
    hostile.plays(made(), says("Hi"), made("ctx-2"))
    conversation = new()
    await conversation.resync()
    await conversation.ask("1?")
    await conversation.resync()
    assert said(conversation) == [("1?", "Hi", True)]
    assert events == [("create", "ctx-1"), ("resync", "ctx-1", "ctx-2")]


async def test_waiters_hear_of_it(hostile, new):
    """Who waits in line behind a turn that becomes doubtful gets the `SessionError`; nothing more is sent."""
    hostile.plays(made(), FAILED)
    conversation = new()
    first, second, third = [
        asyncio.ensure_future(what) for what in (conversation.ask("1?"), conversation.ask("2?"), conversation.warm())
    ]
    with pytest.raises(OutcomeUnknownError):
        await first
    for task in (second, third):
        with pytest.raises(SessionError):
            await task
    assert len(hostile.posts) == 2


# --- what is told -----------------------------------------------------------------------------------------------------


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


# --- on the gateway ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def served(clock, quiet_loop, hooks):
    """A gateway, and a conversation on it, by the same clock."""
    async with (
        Gateway(clock=clock) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url, hooks=hooks) as session,
    ):
        greeting = [system("Be brief."), assistant("Hello!")]
        model = "Doubao-1.5-pro-32k"
        yield gateway, Conversation(session, model=model, messages=greeting, ttl=3600, clock=clock)


async def test_a_real_conversation(served, clock, events):
    """Over expiries, known or not, broken streams and resyncs, the context holds what the transcript says."""
    gateway, conversation = served

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
    async for chunk_ in conversation.stream("Five? " * 50):
        if chunk_.text:
            break
    await conversation.ask("Six?")
    assert kept() == expected()
    assert [turn.finished for turn in conversation.transcript] == [True] * 4 + [False, True]
    task = asyncio.ensure_future(conversation.ask("Seven?"))
    while conversation._dialogue.asked is None:  # noqa: ASYNC110  # it is nobody's event
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await conversation.resync(keep=True)
    await conversation.ask("Eight?")
    assert kept() == expected()
    assert [event[0] for event in events] == ["create", "expired", "gone", "resync", "resync"]


async def test_a_restart(served, clock):
    """Saved and loaded after every turn, a conversation is the same as one that goes on."""
    gateway, conversation = served
    session = conversation._session
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
