"""Streams of a conversation: however they end, the transcript says what is known."""

import asyncio
import contextlib
import gc

import pytest

from ctxcache import OutcomeUnknownError, RateLimitError, SessionError, StreamInterruptedError, user

from ...hostile import CLOSE, END, RESET, SSE, STALL, answer, chunk, event, piece, pieces
from ...hostile import streamed as whole_stream
from .talk import FAILED, ROLE, a_while, made, read, said, says, streams, told


async def test_a_stream(hostile, new):
    """A stream read to its end is a turn like any other; it asks for its usage unless told not to."""
    hostile.plays(made(), streams("Once", " upon"), streams("Again"))
    conversation = new()
    async with conversation.stream("1?") as stream:
        assert await read(stream) == "Once upon"
        assert stream.completion().text == "Once upon"
        assert (await asyncio.wait_for(read(conversation.stream("2?", stream_options={})), 5)) == "Again"
    assert said(conversation) == [("1?", "Once upon", True), ("2?", "Again", True)]
    assert [post.json.get("stream_options") for post in hostile.posts] == [None, {"include_usage": True}, {}]


async def test_nothing_is_sent_before_it_is_used(hostile, new):
    """A stream that is never entered nor iterated takes no turn and sends nothing."""
    hostile.plays(made(), says("Hi"))
    conversation = new()
    unused = conversation.stream("never")
    await conversation.ask("1?")
    assert (told(hostile)[1:], unused.done) == ([("ctx-1", "u:1?")], False)


LEAVE = ["reset", "error event", "cut", "close", "break", "break text", "forget", "cancel", "leave"]


async def leave(how, hostile, conversation):
    """Let a stream end in the middle, in one of many ways."""
    if how in ("reset", "error event", "cut"):
        with pytest.raises(StreamInterruptedError if how != "error event" else RateLimitError):
            await read(conversation.stream("1?"))
    elif how == "close":
        stream = await conversation.stream("1?").open()
        await anext(stream, None)
        await stream.aclose()
    elif how == "break":
        async for _ in conversation.stream("1?"):
            break
    elif how == "break text":
        async for _ in conversation.stream("1?").text():
            break
    elif how == "forget":
        stream = await conversation.stream("1?").open()
        await anext(stream)
        del stream
    elif how == "leave":
        with contextlib.suppress(ZeroDivisionError):
            async with conversation.stream("1?") as stream:
                await anext(stream)
                raise ZeroDivisionError
    elif how == "cancel":
        task = asyncio.ensure_future(read(conversation.stream("1?")))
        await hostile.until(lambda: len(hostile.posts) == 2)
        await hostile.until(lambda: hostile.told)
        await a_while()
        task.cancel()
        await asyncio.wait([task])
        del task
    gc.collect()


def broken(how, *events):
    """The script of a stream that ends so."""
    end = {
        "reset": [RESET],
        "error event": [piece(event({"error": {"code": "RateLimitExceeded.X"}})), END],
        "cut": [END],
    }.get(how, [STALL])

    async def tell(connection):
        connection.server.told = True
        await a_while()

    return [SSE, *pieces(*events), tell, *end]


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("keep", [None, True, False], ids=["by itself", "with", "without"])
async def test_interrupted(hostile, new, events, how, keep):
    """A stream that ends after text, however, leaves an unfinished turn; the next one is on a rebuilt context."""
    hostile.told = False
    hostile.plays(made(), broken(how, chunk("On"), chunk("ce")))
    conversation = new()
    await leave(how, hostile, conversation)
    hostile.plays(made("ctx-2"), says("Yes"))
    if keep is not None:
        await conversation.resync(keep=keep)
    assert (await conversation.ask("2?")).text == "Yes"
    [create, turn] = told(hostile)[2:]
    assert events == [("create", "ctx-1"), ("resync", "ctx-1", "ctx-2")]
    if keep is False:
        assert (create, turn) == (("create", "s:Be brief."), ("ctx-2", "u:2?"))
        assert said(conversation) == [("2?", "Yes", True)]
    else:
        (question, text, finished), last = said(conversation)
        assert (question, finished, last) == ("1?", False, ("2?", "Yes", True))
        assert text in ("On", "Once")
        assert (create, turn) == (("create", "s:Be brief.", "u:1?"), ("ctx-2", f"a:{text}", "u:2?"))


@pytest.mark.parametrize("how", [how for how in LEAVE if how not in ("error event", "break text")])
async def test_left_before_any_text(hostile, new, how):
    """A stream that ends before any text leaves a doubtful turn, however it ends."""
    hostile.told = False
    hostile.plays(made(), broken(how, ROLE))
    conversation = new()
    await leave(how, hostile, conversation)
    with pytest.raises(SessionError, match=r"resync\(\)"):
        await conversation.ask("2?")
    assert (conversation.doubtful, said(conversation)) == ((user("1?"),), [])
    hostile.plays(made("ctx-2"), says("Yes"))
    await conversation.resync()
    await conversation.ask("2?")
    assert said(conversation) == [("2?", "Yes", True)]


@pytest.mark.parametrize(
    "script", [FAILED, [CLOSE], [SSE, RESET], [whole_stream(ROLE)], [answer(b"<p>", kind="text/html")]]
)
async def test_the_error_of_a_stream_says_so(hostile, new, script):
    """The error of a stream whose outcome is unknown names the way on."""
    hostile.plays(made(), script)
    conversation = new()
    with pytest.raises((OutcomeUnknownError, StreamInterruptedError), match=r"resync\(\)"):
        await read(conversation.stream("1?"))
    assert conversation.doubtful == (user("1?"),)


async def test_closed_while_it_opens(hostile, new):
    """A stream that another task closes before its head came is doubtful, and its reader's error says so."""
    hostile.plays(made(), [STALL])
    conversation = new()
    stream = conversation.stream("1?")
    reading = asyncio.ensure_future(read(stream))
    await hostile.until(lambda: len(hostile.posts) == 2)
    await stream.aclose()
    with pytest.raises(StreamInterruptedError, match=r"resync\(\)"):
        await reading
    assert conversation.doubtful == (user("1?"),)


async def test_the_session_closes(hostile, new):
    """A stream that the session's end interrupts leaves what was received; whoever waits in line gets an error."""
    hostile.plays(made(), [SSE, piece(chunk("Once")), STALL])
    conversation = new()
    stream = conversation.stream("1?")
    await anext(stream)
    waiting = asyncio.ensure_future(conversation.ask("2?"))
    await a_while()
    await new.session.aclose()
    with pytest.raises(StreamInterruptedError):
        await anext(stream)
    with pytest.raises(SessionError):
        await waiting
    assert (said(conversation), conversation.doubtful) == ([("1?", "Once", False)], None)


@pytest.mark.parametrize("how", ["close", "break", "break text", "forget", "cancel", "leave"])
async def test_left_after_its_finish_reason(hostile, new, events, how):
    """Whoever leaves a stream whose finish reason has come has the whole answer: nothing is rebuilt."""
    hostile.told = False
    hostile.plays(made(), broken(how, chunk("Once", finish="stop")), says("Yes"))
    conversation = new()
    await leave(how, hostile, conversation)
    await conversation.ask("2?")
    assert said(conversation) == [("1?", "Once", True), ("2?", "Yes", True)]
    assert events == [("create", "ctx-1")]


@pytest.mark.parametrize("how", ["reset", "error event"])
async def test_broken_after_its_finish_reason(hostile, new, events, how):
    """An error is an error: whether the service kept the answer is unknown."""
    hostile.told = False
    hostile.plays(made(), broken(how, chunk("Once", finish="stop")), made("ctx-2"), says("Yes"))
    conversation = new()
    await leave(how, hostile, conversation)
    await conversation.ask("2?")
    assert said(conversation) == [("1?", "Once", False), ("2?", "Yes", True)]
    assert events[1:] == [("resync", "ctx-1", "ctx-2")]
