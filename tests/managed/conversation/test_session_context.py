"""`session_context`: created on first use, rebuilt from the transcript, saved and loaded."""

import asyncio

import pytest

from ctxcache import (
    APITimeoutError,
    AsyncSession,
    BadRequestError,
    InvalidInputError,
    Limits,
    SessionError,
    StreamInterruptedError,
    Timeouts,
    TruncationStrategy,
    assistant,
    system,
    user,
)
from ctxcache.managed.conversation import Conversation

from ...hostile import DONE, END, RESET, SSE, STALL, after, chunk, piece, pieces, refusal
from .talk import a_while, made, read, said, says, streams, told


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


async def test_save_and_load(hostile, new, session_for, clock, key):
    """A loaded conversation goes on, on the same context, as long as that is not expired."""
    hostile.plays(made(), says("Hi"), says("Yes"))
    conversation = new(ttl=3600, truncation_strategy=TruncationStrategy(type="rolling_tokens"), keep_turns=5, margin=9)
    await conversation.ask("1?")
    text = conversation.save()
    assert key not in text
    loaded = Conversation.load(session_for(), text, clock=clock)
    assert loaded.save() == text
    assert (loaded.transcript, loaded.messages) == (conversation.transcript, conversation.messages)
    assert (loaded.context.id, loaded.expires_at) == ("ctx-1", conversation.expires_at)
    clock.advance(3590)
    assert (await loaded.ask("2?")).text == "Yes"
    assert told(hostile)[2:] == [("ctx-1", "u:2?")]


async def test_load_before_the_first_turn(hostile, new, clock):
    """A conversation that was never used is loaded as such."""
    hostile.plays(made(), says("Hi"))
    loaded = Conversation.load(new.session, new().save(), clock=clock)
    assert loaded.context is None
    assert (await loaded.ask("1?")).text == "Hi"


async def test_load_when_expired(hostile, new, clock, events):
    """A loaded conversation whose context has expired rebuilds it."""
    hostile.plays(made(), says("Hi"), made("ctx-2"), says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    clock.advance(3600)
    loaded = Conversation.load(new.session, conversation.save(), clock=clock)
    await loaded.ask("2?")
    assert told(hostile)[2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:2?")]
    assert events[1:] == [("expired", "ctx-1", "ctx-2")]


async def test_load_on_another_account(hostile, new, clock):
    """With another key the context is not tried: it is another account's."""
    hostile.plays(made(), says("Hi"), made("ctx-2"), says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    async with AsyncSession("sk-another", hostile.url) as session:
        loaded = Conversation.load(session, conversation.save(), clock=clock)
        assert loaded.context is None
        await loaded.ask("2?")
    assert told(hostile)[2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:2?")]


async def test_load_what_travels(hostile, new, clock):
    """What had yet to travel when a conversation was saved travels after it is loaded."""
    hostile.plays(made(), says("Hi"))
    conversation = new([system("S"), assistant("Hello!")])
    await conversation.warm()
    await Conversation.load(new.session, conversation.save(), clock=clock).ask("1?")
    assert told(hostile)[1:] == [("ctx-1", "a:Hello!", "u:1?")]


async def test_load_unfinished(hostile, new, clock, events):
    """A conversation saved after an interrupted stream rebuilds its context when it is loaded."""
    hostile.plays(made(), [SSE, piece(chunk("Once")), RESET], made("ctx-2"), says("Yes"))
    conversation = new()
    with pytest.raises(StreamInterruptedError):
        await read(conversation.stream("1?"))
    loaded = Conversation.load(new.session, conversation.save(), clock=clock)
    assert said(loaded) == [("1?", "Once", False)]
    await loaded.ask("2?")
    assert events[1:] == [("resync", "ctx-1", "ctx-2")]


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_saved_in_a_turn(hostile, new, clock, how):
    """A turn under way is doubtful in what is saved meanwhile; the conversation itself knows better in the end."""
    go = asyncio.Event()
    last = [after(go), *says("Hi")] if how == "ask" else [SSE, piece(chunk("Hi")), after(go), *pieces(DONE), END]
    hostile.plays([after(go), *made()], last)
    conversation = new()
    task = asyncio.ensure_future(conversation.ask("1?") if how == "ask" else read(conversation.stream("1?")))
    await hostile.until(lambda: hostile.posts)
    assert Conversation.load(new.session, conversation.save(), clock=clock).doubtful is None  # not sent yet
    go.set()
    go.clear()
    await hostile.until(lambda: len(hostile.posts) == 2)
    text = conversation.save()
    assert conversation.doubtful is None
    go.set()
    await task
    assert (said(conversation), conversation.doubtful) == ([("1?", "Hi", True)], None)
    loaded = Conversation.load(new.session, text, clock=clock)
    assert (loaded.doubtful, said(loaded)) == ((user("1?"),), [])
    with pytest.raises(SessionError, match=r"resync\(\)"):
        await loaded.ask("2?")
    hostile.plays(made("ctx-2"))
    await loaded.resync(keep=True)
    assert said(loaded) == [("1?", None, False)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "ctxcache.conversation", "version": 99}', None])
async def test_load_something_else(new, text):
    """What is no saved conversation is an `InvalidInputError`."""
    with pytest.raises(InvalidInputError):
        Conversation.load(new.session, text)


# --- creates whose caller is gone


async def leave(task):
    """Cancel a caller."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("when", ["before the answer", "after the answer"])
@pytest.mark.parametrize("how", ["ask", "stream", "warm"])
async def test_a_create_that_was_sent_serves_the_next_turn(hostile, new, events, how, when):
    """The context is billed in any case; the next caller, if of another question, waits for the same create."""
    go = asyncio.Event()
    hostile.plays([after(go), *made(usage={"prompt_tokens": 7})], says("Hi"))
    conversation = new()
    calls = {"ask": lambda: conversation.ask("0?"), "stream": lambda: read(conversation.stream("0?"))}
    task = asyncio.ensure_future(calls.get(how, conversation.warm)())
    await hostile.until(lambda: hostile.posts)
    await leave(task)
    assert (conversation.context, conversation.doubtful) == (None, None)
    if when == "after the answer":
        go.set()
        await hostile.until(lambda: conversation.usage.prompt_tokens == 7)
    turn = asyncio.ensure_future(conversation.ask("1?"))
    go.set()
    await turn
    assert told(hostile) == [("create", "s:Be brief."), ("ctx-1", "u:1?")]
    assert events == [("create", "ctx-1")]
    assert said(conversation) == [("1?", "Hi", True)]


async def test_turns_that_are_shorter_than_a_create(hostile, new):
    """A conversation gets its context all the same, and pays for one."""
    go = asyncio.Event()
    hostile.plays([after(go), *made()], says("Hi"))
    conversation = new()
    for _ in range(3):
        with pytest.raises(APITimeoutError):
            await conversation.ask("1?", timeouts=Timeouts(total=0.1))
    go.set()
    await conversation.ask("1?")
    assert told(hostile) == [("create", "s:Be brief."), ("ctx-1", "u:1?")]


async def test_such_a_create_that_fails(hostile, new):
    """Its error is nobody's; the next turn creates a context."""
    go = asyncio.Event()
    hostile.plays([after(go), refusal(400)], made(), says("Hi"))
    conversation = new()
    task = asyncio.ensure_future(conversation.ask("0?"))
    await hostile.until(lambda: hostile.posts)
    await leave(task)
    go.set()
    await hostile.until(lambda: "pending" not in new.session.holdings())
    await conversation.ask("1?")
    assert len(hostile.posts) == 3


async def test_such_a_context_that_expires_unused(hostile, new, clock):
    """Nobody uses it."""
    go = asyncio.Event()
    hostile.plays([after(go), *made(usage={"prompt_tokens": 7})], made("ctx-2"), says("Hi"))
    conversation = new()
    task = asyncio.ensure_future(conversation.ask("0?"))
    await hostile.until(lambda: hostile.posts)
    await leave(task)
    go.set()
    await hostile.until(lambda: conversation.usage.prompt_tokens == 7)
    clock.advance(3600)
    await conversation.ask("1?")
    assert told(hostile)[1:] == [("create", "s:Be brief."), ("ctx-2", "u:1?")]


@pytest.mark.parametrize("first", [True, False])
async def test_such_a_context_of_other_messages(hostile, new, first):
    """A context that lacks a turn serves no conversation that has the turn, whichever create ends first."""
    go = asyncio.Event()
    hostile.plays(made(), [STALL], [after(go), *made("ctx-2")], made("ctx-3"), says("Yes"))
    conversation = new()
    asked = asyncio.ensure_future(conversation.ask("1?"))
    await hostile.until(lambda: len(hostile.posts) == 2)
    await leave(asked)
    resync = asyncio.ensure_future(conversation.resync())
    await hostile.until(lambda: len(hostile.posts) == 3)
    await leave(resync)
    assert conversation.doubtful == (user("1?"),)
    if first:
        go.set()
    await conversation.resync(keep=True)
    go.set()
    await hostile.until(lambda: "pending" not in new.session.holdings())
    await conversation.ask("2?")
    assert told(hostile)[3:] == [("create", "s:Be brief.", "u:1?"), ("ctx-3", "u:2?")]


async def test_a_create_that_was_not_sent_ends_with_its_caller(hostile, session_for):
    """Nothing is billed, and nothing is created for nobody."""
    session = session_for(limits=Limits(connections=1))
    hostile.plays([STALL])
    busy = asyncio.ensure_future(session.context.create(model="m", messages=[user("?")]))
    await hostile.until(lambda: hostile.posts)
    task = asyncio.ensure_future(Conversation(session, model="m", messages=[user("Hi")]).ask("0?"))
    await a_while()
    await leave(task)
    await leave(busy)
    await a_while()
    assert len(hostile.posts) == 1
