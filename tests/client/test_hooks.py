"""Hooks look on: each is told what it is for, and nothing it does reaches a call. And what a session adds up."""

import asyncio
import copy
import logging

import attrs
import pytest

from ctxcache import (
    AsyncSession,
    AuthenticationError,
    CallEvent,
    CompletionTokensDetails,
    CreateEvent,
    Hooks,
    InvalidInputError,
    Limits,
    Prefix,
    PromptTokensDetails,
    RateLimitError,
    Retry,
    RetryEvent,
    Timeouts,
    Usage,
)
from ctxcache.client.environment import Environment

from ..hostile import CHAT, COMPLETION, CONTEXT, CREATE, DONE, RESET, SSE, answer, chunk, piece, refusal, streamed

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def make(hostile, key, **hooks):
    """A session with hooks and without pauses."""
    return AsyncSession(key, hostile.url, retry=Retry(first_delay=0), hooks=Hooks(**hooks))


def test_a_session_returns_its_settings_as_given():
    """`hooks`, `timeouts`, `limits` and `retry` of a session are the very values it was made with."""
    given = {"hooks": Hooks(on_call=print), "timeouts": Timeouts(), "limits": Limits(), "retry": Retry(attempts=2)}
    session = AsyncSession("sk-test", **given)
    assert all(getattr(session, name) is value for name, value in given.items())


async def test_on_call_is_told_of_every_end(hostile, key):
    """A create, an answer, a stream, a failure: one event each, with usage, ids and error."""
    events = []
    hostile.plays(
        [answer({**CONTEXT, "usage": USAGE}, "X-Request-Id: r1")],
        [answer({**COMPLETION, "usage": USAGE})],
        [streamed(chunk("Hi", "stop", usage=USAGE), DONE)],
        [refusal(401)],
    )
    async with make(hostile, key, on_call=events.append) as session:
        await session.context.create(**CREATE)
        await session.chat.create(**CHAT)
        async for _ in session.chat.stream(**CHAT):
            pass
        with pytest.raises(Exception, match="401") as caught:
            await session.chat.create(**CHAT)
    create, plain, stream, failed = events
    assert (create.path, create.context_id, create.request_id, create.status) == ("/context/create", None, "r1", 200)
    assert (plain.context_id, plain.stream, plain.attempts, plain.error) == ("ctx-1", False, 1, None)
    assert stream.stream
    assert create.usage.prompt_tokens == plain.usage.prompt_tokens == stream.usage.prompt_tokens == 10
    assert failed.error is caught.value
    assert create.headers["x-request-id"] == "r1"
    assert failed.usage is None
    assert all(event.seconds >= 0 for event in events)


async def test_on_retry_is_told_before_the_pause(hostile, key):
    """Each further attempt is announced, with its reason."""
    events = []
    hostile.plays([refusal(429)], [refusal(429)], [answer()])
    async with make(hostile, key, on_retry=events.append) as session:
        await session.chat.create(**CHAT)
    assert [(event.attempt, event.delay, type(event.error)) for event in events] == [
        (1, 0, RateLimitError),
        (2, 0, RateLimitError),
    ]
    assert events[0].client_request_id == hostile.posts[0].headers["x-client-request-id"]
    assert key not in repr(events)


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_cannot_break_a_call(hostile, key, caplog, error, asynchronous):
    """What a hook raises is logged once, and the calls go on."""

    def fails(event):
        raise error

    async def fails_later(event):
        raise error

    hostile.plays([answer()], [answer()])
    async with make(hostile, key, on_call=fails_later if asynchronous else fails) as session:
        assert (await session.chat.create(**CHAT)).text == "Hi"
        assert (await session.chat.create(**CHAT)).text == "Hi"
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    cancelled_itself = asynchronous and isinstance(error, asyncio.CancelledError)
    assert len(said) == (0 if cancelled_itself else 1)


async def test_an_async_hook_holds_up_nothing(hostile, key):
    """The call returns while the hook still waits; closing the session lets it finish."""
    may_go, went = asyncio.Event(), []

    async def slow(event):
        await may_go.wait()
        went.append(event)

    hostile.plays([answer()])
    async with make(hostile, key, on_call=slow) as session:
        await session.chat.create(**CHAT)
        assert went == []
        may_go.set()
    assert len(went) == 1


async def test_a_hook_that_hangs_is_cancelled(hostile, session_for):
    """Closing a session waits for hooks for a moment only, and leaves no task."""
    ended = []

    async def hangs(event):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event)

    hostile.plays([answer()])
    async with session_for(environment=Environment(grace=0.01), hooks=Hooks(on_call=hangs)) as session:
        await session.chat.create(**CHAT)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(ended) == 1


async def test_a_hook_may_close_the_session(hostile, key):
    """It does not wait for itself."""
    closed = asyncio.Event()

    async def close(event):
        await session.aclose()
        closed.set()

    hostile.plays([answer()])
    session = make(hostile, key, on_call=close)
    await session.chat.create(**CHAT)
    await closed.wait()


async def test_events_can_be_counted(hostile, key):
    """Every event is hashable, and equal to another of the same call: a hook may keep a set of them."""
    events = []
    hostile.plays([answer(CONTEXT)], [RESET], [answer({**COMPLETION, "usage": USAGE})], [refusal(401)])
    hooks = dict.fromkeys(attrs.fields_dict(Hooks), events.append)
    async with make(hostile, key, **hooks) as session:
        manual = Prefix(session, **CREATE)
        await manual.ask("?")
        with pytest.raises(AuthenticationError):
            await manual.ask("?")
    assert {type(event) for event in events} == {CallEvent, CreateEvent, RetryEvent}
    assert len(set(events)) == len(events)
    assert {*events, *map(copy.copy, events)} == set(events)


def test_hooks_are_functions():
    """What cannot be called is refused when it is set."""
    with pytest.raises(InvalidInputError, match=r"Hooks\.on_call must be .*'no'"):
        Hooks(on_call="no")
    with pytest.raises(InvalidInputError, match="hooks"):
        AsyncSession("sk-test", hooks=len)


def test_usage_adds_up():
    """Every count is added, the cached tokens as a part of the prompt's."""
    one = Usage(
        prompt_tokens=10,
        completion_tokens=3,
        total_tokens=13,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=8),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=1),
    )
    total = sum([one, one, Usage(prompt_tokens=5, total_tokens=5)], Usage())
    assert (total.prompt_tokens, total.completion_tokens, total.total_tokens) == (25, 6, 31)
    assert (total.cached_tokens, total.fresh_tokens, total.reasoning_tokens) == (16, 9, 2)
    with pytest.raises(TypeError):
        one + 1


async def test_a_session_adds_up_its_usage(hostile, session):
    """Creates, answers, streams and what an interrupted stream had said, once each."""
    hostile.plays(
        [answer({**CONTEXT, "usage": USAGE})],
        [answer({**COMPLETION, "usage": USAGE})],
        [streamed(chunk("Hi", "stop", usage=USAGE), DONE)],
        [SSE, piece(chunk("Hel", usage=USAGE)), RESET],
    )
    await session.context.create(**CREATE)
    await session.chat.create(**CHAT)
    async for _ in session.chat.stream(**CHAT):
        pass
    with pytest.raises(Exception, match="interrupted"):
        [chunk async for chunk in session.chat.stream(**CHAT)]
    assert session.usage == Usage(
        prompt_tokens=40,
        completion_tokens=12,
        total_tokens=52,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=32),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=4),
    )


async def test_a_call_s_own_retry(hostile, session):
    """`retry` of a call wins over the session's; what is none is refused before anything is sent."""
    hostile.plays([refusal(429)])
    with pytest.raises(RateLimitError):
        await session.chat.create(**CHAT, retry=Retry(attempts=1))
    with pytest.raises(InvalidInputError, match="retry"):
        await session.chat.create(**CHAT, retry=-3)
    with pytest.raises(InvalidInputError, match="retry"):
        await session.chat.stream(**CHAT, retry=-3).open()
    assert len(hostile.posts) == 1


def test_fingerprints():
    """The same data under another key or at another URL has another fingerprint, which tells neither."""
    one = AsyncSession("sk-one", "http://a/v1")
    prints = {
        one.fingerprint(b"data"),
        one.fingerprint(b"other"),
        AsyncSession("sk-two", "http://a/v1").fingerprint(b"data"),
        AsyncSession("sk-one", "http://b/v1").fingerprint(b"data"),
    }
    assert len(prints) == 4
    assert one.fingerprint(b"data") == AsyncSession("sk-one", "http://a/v1/").fingerprint(b"data")
    assert all(len(text) == 64 for text in prints)
