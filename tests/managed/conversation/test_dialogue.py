"""`dialogue`: the outcome of each turn, and what follows from it."""

import asyncio
import pickle

import pytest

from ctxcache import (
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    OutcomeUnknownError,
    Retry,
    SessionError,
    user,
)

from ...hostile import CLOSE, after, answer, chunk, event, refusal
from ...hostile import streamed as whole_stream
from .talk import FAILED, GONE, GONE_EVENT, ROLE, made, read, said, says, streams, told


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
    go = asyncio.Event()
    hostile.plays(made(), FAILED, [refusal(401)], [after(go), *made("ctx-9")])
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
    go.set()
    await hostile.until(lambda: "pending" not in new.session.holdings())


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


async def test_an_answer_of_nothing_is_unfinished(hostile, new, events):
    """Neither text nor tool call nor finish reason: no such turn counts as answered, and the context is rebuilt."""
    hostile.plays(made(), [answer({"choices": [{"message": {}}]})], made("ctx-2"), says("Yes"))
    conversation = new()
    await conversation.ask("1?")
    assert said(conversation) == [("1?", None, False)]
    await conversation.ask("2?")
    assert events[1:] == [("resync", "ctx-1", "ctx-2")]


async def test_a_context_s_id_forges_no_log_line(hostile, new, log_lines):
    """What a server puts into an id is escaped in the log and in a repr; the hooks get it as it is."""
    evil = "ctx\nERROR forged \x1b[2J"
    hostile.plays(made(evil), [CLOSE])
    conversation = new()
    with pytest.raises(OutcomeUnknownError):
        await conversation.ask("1?")
    lines = [*log_lines("INFO"), *log_lines("WARNING"), repr(conversation)]
    assert len([line for line in lines if "forged" in line]) == 3
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert conversation.context.id == evil
