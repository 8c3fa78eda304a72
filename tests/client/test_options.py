"""Settings of a session, of a call, and of sessions that share connections."""

import pytest

from ctxcache import (
    UNSET,
    APITimeoutError,
    AsyncSession,
    Conversation,
    InvalidInputError,
    Prefix,
    RateLimitError,
    ReplyTimeoutError,
    Retry,
    SessionError,
    Timeouts,
)
from ctxcache.config import read_retry, read_timeouts

from ..hostile import CHAT, CONTEXT, CREATE, STALL, answer, refusal, streamed

BUSY = refusal(429, "ServerOverloaded")


def test_named_limits_only():
    """A call's time limits change only those they name, a default that is named included."""
    base = Timeouts(connect=1, head=30, idle=5, total=60)
    assert read_timeouts(Timeouts(idle=7), base) == Timeouts(connect=1, head=30, idle=7, total=60)
    assert read_timeouts(Timeouts(head=600, total=None), base) == Timeouts(connect=1, head=600, idle=5, total=None)
    assert read_timeouts(Timeouts(), base) is base
    assert read_timeouts(9, base) == Timeouts(connect=1, head=30, idle=5, total=9)
    assert read_timeouts(None, base) is read_timeouts(UNSET, base) is base
    assert Timeouts() == Timeouts(connect=10, pool=None, head=600, idle=120, total=None)


def test_a_number_of_retries():
    """A number counts the retries after the first attempt, with the pauses of the base."""
    base = Retry(attempts=9, first_delay=0.25)
    assert read_retry(0, base) == Retry(attempts=1, first_delay=0.25)
    assert read_retry(2, base).attempts == 3
    assert read_retry(Retry(), base) == Retry()
    assert read_retry(None, base) is read_retry(UNSET, base) is base


async def test_numbers_as_settings(hostile, key):
    """`timeouts=` and `retry=` of a session and of a call take numbers."""
    hostile.plays([BUSY], [STALL], [BUSY], [BUSY], [BUSY], [answer()])
    async with AsyncSession(key, hostile.url, timeouts=0.05, retry=0) as session:
        assert (session.timeouts, session.retry) == (Timeouts(total=0.05), Retry(attempts=1))
        with pytest.raises(RateLimitError):
            await session.chat.create(**CHAT)
        with pytest.raises(ReplyTimeoutError) as caught:
            await session.chat.create(**CHAT)
        assert (caught.value.limit, isinstance(caught.value, APITimeoutError | TimeoutError)) == ("total", True)
        patient = session.with_options(timeouts=5, retry=Retry(attempts=2, first_delay=0))
        with pytest.raises(RateLimitError):
            await patient.chat.create(**CHAT)
        reply = await patient.chat.create(**CHAT, retry=1)
        assert reply.text == "Hi"


async def test_options_share_connections(hostile, session):
    """A session of `with_options` uses the same connections, counts to the same usage, and closes nothing."""
    usage = {"usage": {"prompt_tokens": 3}}
    body = {"choices": [{"message": {"content": "Hi"}}], **usage}
    hostile.plays([answer(body)], [answer(body)], [streamed()], [answer(body)])
    other = session.with_options(headers={"x-team": "red"}, chat_defaults={"temperature": 0.5})
    further = other.with_options(headers={"x-trace": "1"})
    async with other:
        for one in (session, other):
            await one.chat.create(**CHAT)
        async for _ in further.chat.stream(**CHAT):
            pass
    assert not session.closed
    await session.chat.create(**CHAT)
    assert len(hostile.connections) == 1
    assert [post.headers.get("x-team") for post in hostile.posts] == [None, "red", "red", None]
    assert [post.headers.get("x-trace") for post in hostile.posts] == [None, None, "1", None]
    assert [post.json.get("temperature") for post in hostile.posts] == [None, 0.5, 0.5, None]
    assert session.usage.prompt_tokens == other.usage.prompt_tokens == further.usage.prompt_tokens == 9
    await session.aclose()
    assert other.closed
    assert "closed" in repr(further)
    with pytest.raises(SessionError, match="closed"):
        await further.chat.create(**CHAT)


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_headers_of_a_managed_create(hostile, session, kind):
    """Headers of `with_options` go with the create of a `Prefix` and a `Conversation` as with their calls."""
    hostile.plays([answer(CONTEXT)], [answer()])
    tenant = session.with_options(headers={"X-Tenant": "red"})
    await kind(tenant, **CREATE).ask("?")
    assert [post.headers.get("x-tenant") for post in hostile.posts] == ["red", "red"]


async def test_chat_defaults(hostile, session_for):
    """A default is for chats that do not give their own; `UNSET` leaves it out, None does not."""
    hostile.plays(*[[answer()]] * 4)
    session = session_for(chat_defaults={"temperature": 0.5, "max_tokens": 9})
    await session.chat.create(**CHAT)
    await session.chat.create(**CHAT, temperature=1, max_tokens=None)
    await session.chat.create(**CHAT, temperature=UNSET)
    sent = [(post.json.get("temperature"), post.json.get("max_tokens")) for post in hostile.posts]
    assert sent == [(0.5, 9), (1, 9), (None, 9)]


async def test_default_stream_options(hostile, session_for):
    """Default `stream_options` go with streams alone: the service refuses them in a plain chat."""
    hostile.plays([answer()], [streamed()], [streamed()])
    session = session_for(chat_defaults={"stream_options": {"include_usage": True}})
    await session.chat.create(**CHAT)
    await session.chat.stream(**CHAT).finish()
    await (await session.chat.create(**CHAT, stream=True)).finish()
    usage = {"include_usage": True}
    assert [post.json.get("stream_options") for post in hostile.posts] == [None, usage, usage]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chat_defaults": {"temperature": 9}}, InvalidInputError),
        ({"chat_defaults": {"temprature": 1}}, TypeError),
        ({"chat_defaults": {"stream_options": 5}}, InvalidInputError),
        *[({"chat_defaults": bad}, InvalidInputError) for bad in (5, "temperature", [("temperature", 1)])],
        ({"timeouts": "5"}, InvalidInputError),
        ({"retry": -1}, InvalidInputError),
        ({"headers": {"a b": "c"}}, InvalidInputError),
    ],
)
async def test_options_are_checked(session, options, error):
    """What is out of its range is refused when the session is made, not at the first call."""
    with pytest.raises(error):
        session.with_options(**options)
    if "chat_defaults" in options:
        with pytest.raises(error):
            AsyncSession("sk-test", **options)


async def test_a_create_takes_numbers(hostile, session):
    """So does a create."""
    hostile.plays([BUSY])
    with pytest.raises(RateLimitError):
        await session.context.create(**CREATE, retry=0, timeouts=5)
    assert len(hostile.posts) == 1
