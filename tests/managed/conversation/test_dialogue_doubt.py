"""Turns in doubt: refused until `resync`, dropped or kept, as `in_doubt` says; never sent twice."""

import asyncio
import copy
import gc
import json
import pickle

import pytest

from ctxcache import (
    AsyncSession,
    CtxCacheError,
    InvalidInputError,
    OutcomeUnknownError,
    ReplyLostError,
    ReplyTimeoutError,
    SessionError,
    StreamInterruptedError,
    Timeouts,
    TurnInDoubtError,
    tool,
    user,
)
from ctxcache.managed.conversation import Conversation

from ...hostile import CLOSE, END, RESET, SSE, STALL, answer, chunk, piece, refusal
from .talk import FAILED, ROLE, a_while, made, read, said, says, streams, told

UNKNOWN = (OutcomeUnknownError, StreamInterruptedError)


async def ask(hostile, conversation):
    """A plain turn."""
    await conversation.ask("2?")


async def stream(hostile, conversation):
    """A streamed turn, read to its end."""
    await read(conversation.stream("2?"))


async def time_out(hostile, conversation):
    """A plain turn with a short limit."""
    await conversation.ask("2?", timeouts=Timeouts(head=0.05))


async def time_out_in_all(hostile, conversation):
    """A streamed turn with a short limit for all of it."""
    await read(conversation.stream("2?", timeouts=0.05))


async def cancel(hostile, conversation, turn=ask):
    """A turn whose task is cancelled once the service has the question."""
    count = len(hostile.posts)
    task = asyncio.ensure_future(turn(hostile, conversation))
    await hostile.until(lambda: len(hostile.posts) == count + 1)
    await a_while()
    task.cancel()
    await asyncio.wait([task])
    raise OutcomeUnknownError("cancelled")


async def cancel_stream(hostile, conversation):
    """The same with a stream."""
    await cancel(hostile, conversation, stream)


async def close_while_opening(hostile, conversation):
    """A stream that another task closes before its head."""
    count = len(hostile.posts)
    opening = conversation.stream("2?")
    task = asyncio.ensure_future(opening.open())
    await hostile.until(lambda: len(hostile.posts) == count + 1)
    await opening.aclose()
    await task


async def leave(hostile, conversation):
    """A stream that its reader leaves before any text."""
    async for _ in conversation.stream("2?"):
        break
    await a_while()
    raise OutcomeUnknownError("left")


async def forget(hostile, conversation):
    """A stream that nobody holds any more."""
    opened = await conversation.stream("2?").open()
    del opened
    gc.collect()
    await a_while()
    raise OutcomeUnknownError("forgotten")


WAYS = {
    "500": (ask, FAILED),
    "no answer": (ask, [CLOSE]),
    "reset": (stream, [RESET]),
    "half an answer": (ask, [answer()[:-5], CLOSE]),
    "no JSON": (ask, [answer(b"junk")]),
    "no stream": (stream, [answer(b"<p>", kind="text/html")]),
    "timeout": (time_out, [STALL]),
    "total": (time_out_in_all, [STALL]),
    "cancelled": (cancel, [STALL]),
    "cancelled stream": (cancel_stream, [STALL]),
    "cut": (stream, [SSE, piece(ROLE), END]),
    "cut without a chunk": (stream, [SSE, RESET]),
    "closed while opening": (close_while_opening, [STALL]),
    "left": (leave, [SSE, piece(ROLE), STALL]),
    "forgotten": (forget, [SSE, piece(ROLE), STALL]),
}


@pytest.mark.parametrize("in_doubt", ["raise", "drop", "keep"])
@pytest.mark.parametrize(("turn", "script"), WAYS.values(), ids=WAYS)
async def test_a_doubt_of_any_kind(hostile, new, events, log_lines, turn, script, in_doubt):
    """Its error is raised; then turns are refused, or made on a context rebuilt without or with the question."""
    hostile.plays(made(), says("Hi"), script)
    conversation = new(in_doubt=in_doubt)
    await conversation.ask("1?")
    with pytest.raises(UNKNOWN):
        await turn(hostile, conversation)
    assert len(hostile.posts) == 3
    [line] = log_lines("WARNING")
    assert "ctx-1 is unknown" in line
    if in_doubt == "raise":
        assert conversation.doubtful == (user("2?"),)
        with pytest.raises(TurnInDoubtError, match=r"resync\(\)"):
            await conversation.ask("3?")
        assert len(hostile.posts) == 3
        return
    assert conversation.doubtful is None
    hostile.plays(made("ctx-2"), says("Yes"), says("Fine"))
    assert (await conversation.ask("3?")).text == "Yes"
    await conversation.ask("4?")
    assert events == [("create", "ctx-1"), ("resync", "ctx-1", "ctx-2")]
    if in_doubt == "keep":
        assert told(hostile)[3:5] == [("create", "s:Be brief.", "u:1?", "a:Hi", "u:2?"), ("ctx-2", "u:3?")]
        assert said(conversation)[1:3] == [("2?", None, False), ("3?", "Yes", True)]
    else:
        assert told(hostile)[3:5] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Hi", "u:3?")]
        assert said(conversation)[1:2] == [("3?", "Yes", True)]
    assert told(hostile)[5:] == [("ctx-2", "u:4?")]


@pytest.mark.parametrize("in_doubt", ["drop", "keep"])
@pytest.mark.parametrize("turn", [ask, stream])
async def test_the_error_says_how_it_goes_on(hostile, new, turn, in_doubt):
    """The turn's error says that there is no need to decide; an error of a later turn does not."""
    hostile.plays(made(), FAILED, [refusal(401)], made("ctx-2"), [refusal(400, "InvalidParameter")])
    conversation = new(in_doubt=in_doubt)
    with pytest.raises(OutcomeUnknownError) as caught:
        await turn(hostile, conversation)
    [note] = caught.value.__notes__
    assert "resync" not in note
    assert ("without it" if in_doubt == "drop" else "unanswered") in note
    for _ in range(2):
        with pytest.raises(CtxCacheError) as caught:
            await turn(hostile, conversation)
        assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("in_doubt", ["drop", "keep"])
async def test_a_failed_rebuild_changes_nothing(hostile, new, in_doubt):
    """Where the context cannot be rebuilt the turn does not run, and the next one tries again."""
    hostile.plays(made(), says("Hi"), FAILED, [refusal(401)], [refusal(401)], made("ctx-2"), says("Yes"))
    conversation = new(in_doubt=in_doubt)
    await conversation.ask("1?")
    with pytest.raises(OutcomeUnknownError):
        await conversation.ask("2?")
    before = said(conversation)
    for use in (conversation.ask("3?"), conversation.warm()):
        with pytest.raises(CtxCacheError, match="401"):
            await use
        assert said(conversation) == before
    await conversation.ask("3?")
    assert told(hostile)[-1][0] == "ctx-2"


async def test_those_in_line_go_on(hostile, new):
    """Turns that wait behind a turn in doubt are made, on the rebuilt context."""
    hostile.plays(made(), FAILED, made("ctx-2"), says("Two"), streams("Three"))
    conversation = new(in_doubt="drop")
    turns = [conversation.ask("1?"), conversation.ask("2?"), read(conversation.stream("3?"))]
    first, second, third = await asyncio.gather(*turns, return_exceptions=True)
    assert (type(first).__name__, second.text, third) == ("InternalServerError", "Two", "Three")
    assert [line[0] for line in told(hostile)] == ["create", "ctx-1", "create", "ctx-2", "ctx-2"]


async def test_doubt_after_doubt(hostile, new):
    """Each turn in doubt is kept, each on a context of its own."""
    hostile.plays(made(), FAILED, made("ctx-2"), FAILED, made("ctx-3"), says("Yes"))
    conversation = new(in_doubt="keep")
    for question in ("1?", "2?"):
        with pytest.raises(OutcomeUnknownError):
            await conversation.ask(question)
    await conversation.ask("3?")
    assert told(hostile)[4:] == [("create", "s:Be brief.", "u:1?", "u:2?"), ("ctx-3", "u:3?")]
    hostile.plays(made("ctx-4"))
    await conversation.resync()  # the last turn is finished
    assert said(conversation) == [("1?", None, False), ("2?", None, False), ("3?", "Yes", True)]


async def test_a_kept_question_may_still_be_dropped(hostile, new):
    """`resync` right after it drops the kept question."""
    hostile.plays(made(), FAILED, made("ctx-2"))
    conversation = new(in_doubt="keep")
    with pytest.raises(OutcomeUnknownError):
        await conversation.ask("1?")
    await conversation.resync()
    assert (said(conversation), told(hostile)[-1]) == ([], ("create", "s:Be brief."))


async def test_a_stream_with_text_is_not_in_doubt(hostile, new):
    """`in_doubt` changes nothing for a stream that broke off: the text received is the answer."""
    hostile.plays(made(), [SSE, piece(chunk("Once")), RESET], made("ctx-2"), says("Yes"))
    conversation = new(in_doubt="drop")
    with pytest.raises(StreamInterruptedError) as caught:
        await read(conversation.stream("1?"))
    assert not hasattr(caught.value, "__notes__")
    await conversation.ask("2?")
    assert told(hostile)[2:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:Once", "u:2?")]


async def test_tool_results_in_doubt(hostile, new):
    """Dropped, they may be sent again: the calls are open still, on the rebuilt context, too."""
    call = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asks = [answer({"choices": [{"index": 0, "message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})]
    hostile.plays(made(), asks, [CLOSE], made("ctx-2"), says("Yes"))
    conversation = new(in_doubt="drop")
    await conversation.ask("1?")
    with pytest.raises(ReplyLostError):
        await conversation.ask([tool("r", tool_call_id="call-1")])
    await conversation.ask([tool("r", tool_call_id="call-1")])
    assert told(hostile)[3:] == [("create", "s:Be brief.", "u:1?"), ("ctx-2", "a:None", "t:r")]


async def test_the_class(hostile, new):
    """The error names context and cause, is no `OutcomeUnknownError`, and pickles; it shows nothing that was said."""
    hostile.plays(made(), [STALL])
    conversation = new()
    with pytest.raises(ReplyTimeoutError):
        await conversation.ask("secret", timeouts=Timeouts(head=0.05))
    for use in (conversation.ask("3?"), read(conversation.stream("3?")), conversation.warm()):
        with pytest.raises(TurnInDoubtError) as caught:
            await use
        error = caught.value
        assert isinstance(error, SessionError)
        assert not isinstance(error, OutcomeUnknownError)
        for found in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (found.context_id, type(found.cause), found.cause.limit) == ("ctx-1", ReplyTimeoutError, "head")
        assert error.__cause__ is error.cause
        assert error.cause.__traceback__ is None  # whose frames would hold the question
        assert "secret" not in f"{error}{error!r}{error.__dict__}"


@pytest.mark.parametrize("in_doubt", ["raise", "drop", "keep"])
@pytest.mark.parametrize("when", ["in flight", "after"])
async def test_saved_and_loaded(hostile, new, clock, in_doubt, when):
    """A conversation that was saved during or after the turn goes on in another process as it would have here."""
    hostile.plays(made(), says("Hi"), [STALL] if when == "in flight" else FAILED)
    conversation = new(in_doubt=in_doubt)
    await conversation.ask("1?")
    task = asyncio.ensure_future(conversation.ask("2?"))
    if when == "in flight":
        await hostile.until(lambda: len(hostile.posts) == 3)
    else:
        await asyncio.wait([task])
    text = conversation.save()
    task.cancel()
    await asyncio.wait([task])
    loaded = Conversation.load(new.session, text, clock=clock)
    assert json.loads(loaded.save())["in_doubt"] == in_doubt
    if in_doubt == "raise":
        with pytest.raises(TurnInDoubtError) as caught:
            await loaded.ask("3?")
        assert (caught.value.context_id, caught.value.cause) == ("ctx-1", None)
        return
    hostile.plays(made("ctx-2"), says("Yes"))
    await loaded.ask("3?")
    kept = ("a:Hi", "u:2?") if in_doubt == "keep" else ()
    assert told(hostile)[3] == ("create", "s:Be brief.", "u:1?", *kept)


async def test_loaded_on_another_account(hostile, new, clock):
    """There the context is not known; the doubt remains."""
    hostile.plays(made(), FAILED)
    conversation = new()
    with pytest.raises(OutcomeUnknownError):
        await conversation.ask("1?")
    async with AsyncSession("sk-another", hostile.url) as session:
        loaded = Conversation.load(session, conversation.save(), clock=clock)
        with pytest.raises(TurnInDoubtError) as caught:
            await loaded.ask("2?")
    assert caught.value.context_id is None


@pytest.mark.parametrize("in_doubt", ["ask", None, True, ["drop"]])
def test_other_settings(new, in_doubt):
    """Any other value is refused by name."""
    with pytest.raises(InvalidInputError, match="in_doubt must be 'raise', 'drop' or 'keep', got"):
        new(in_doubt=in_doubt)
