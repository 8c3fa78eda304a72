"""Managed streams have headers and status, are read whole by `finish`, and relayed to browsers by `sse`."""

import asyncio
import contextlib
import gc
import json

import pytest

from ctxcache import AuthenticationError, ContextGoneError, Conversation, StreamInterruptedError, system
from ctxcache.sse import SSEDecoder

from .conftest import MODEL
from .service import TEXT, WORDS

BEAT = 0.001


@pytest.fixture
def chat(session, clock):
    """A conversation."""
    return Conversation(session, model=MODEL, messages=[system("Be brief.")], clock=clock)


@pytest.fixture(params=["prefix", "chat"])
def asked(request):
    """A Prefix, and a Conversation."""
    return request.getfixturevalue(request.param)


async def read(relay, happened=None):
    """The events of a relay, without comments; `happened` is called at each comment."""
    data = b""
    async for part in relay:
        data += part
        if part.startswith(b":") and happened is not None:
            happened()
    return SSEDecoder().feed(data)


def text_of(events):
    """The text of events that carry chunks."""
    return "".join(json.loads(found.data)["choices"][0]["delta"].get("content", "") for found in events)


async def test_head(asked):
    """Headers and status are there from the opening on."""
    stream = asked.stream("?")
    assert (stream.headers, stream.status) == (None, None)
    async with stream:
        assert (stream.headers["content-type"], stream.status) == ("text/event-stream", 200)
        completion = await stream.finish()
    assert (completion.status, completion.headers) == (200, stream.headers)
    reply = await asked.ask("?")
    assert (reply.status, reply.headers["CONTENT-TYPE"].partition(";")[0]) == (200, "application/json")


async def test_finish(asked, service):
    """`finish` opens the stream, reads the rest, and returns the whole answer; half an answer is an error."""
    assert (await asked.stream("?").finish()).text == TEXT
    stream = asked.stream("?")
    assert (await anext(stream)).text == WORDS[0]
    assert (await stream.finish()).text == TEXT
    service.fate("cut")
    with pytest.raises(StreamInterruptedError) as caught:
        await asked.stream("?").finish()
    assert caught.value.partial.text == WORDS[0]


async def test_relayed(asked):
    """A relay has every chunk, then the end marker; a conversation has the turn."""
    *chunks, last = await read(asked.stream("?").sse())
    assert (text_of(chunks[: len(WORDS)]), last.data) == (TEXT, "[DONE]")
    if isinstance(asked, Conversation):
        assert [(turn.answer, turn.finished) for turn in asked.transcript] == [(TEXT, True)]


async def test_heartbeats_while_the_context_is_made_anew(prefix, service):
    """While a context that turned out to be gone is made anew, there are heartbeats; the answer comes once."""
    await prefix.warm()
    service.creating.clear()
    service.fate("late")
    *chunks, last = await read(prefix.stream("?").sse(heartbeat=BEAT), service.creating.set)
    assert (text_of(chunks[: len(WORDS)]), last.data) == (TEXT, "[DONE]")
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})


async def test_error_event(prefix, service):
    """An error after the first chunk is an event; an error before the head of the answer is raised."""
    service.fate("middle")
    *chunks, last = await read(prefix.stream("?").sse())
    assert text_of(chunks) == WORDS[0]
    assert (last.event, json.loads(last.data)["error"]["type"]) == ("error", ContextGoneError.__name__)
    service.fate("forbidden")
    with pytest.raises(AuthenticationError):
        await anext(prefix.stream("?").sse())


@pytest.mark.parametrize("how", ["aclose", "cancel", "forget", "forget, stream kept"])
@pytest.mark.parametrize("waits", [False, True])
async def test_reader_leaves(asked, service, session, held, until, how, waits):
    """When the reader leaves, the call ends at once, no task is left, and the next question is answered."""
    service.streaming.clear()
    before = asyncio.all_tasks()
    stream = asked.stream("?")
    relay = stream.sse(heartbeat=BEAT)
    assert text_of(SSEDecoder().feed(await anext(relay))) == WORDS[0]
    if waits:
        assert (await anext(relay)).startswith(b":")
    if how == "aclose":
        await relay.aclose()
    elif how == "cancel":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await anext(relay)
    elif how == "forget":
        del stream
    del relay
    gc.collect()
    await until(lambda: held(session) == {} and not [t for t in asyncio.all_tasks() - before if "_next" in repr(t)])
    service.streaming.set()
    assert (await asked.ask("?")).text == TEXT
    if isinstance(asked, Conversation):
        assert [turn.finished for turn in asked.transcript] == [False, True]
