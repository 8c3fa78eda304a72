"""A gateway in a thread of its own, its record, and its verdicts."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import APIConnectionError, AsyncSession, Conversation, InternalServerError, InvalidInputError, Prefix
from ctxcache.errors import OutcomeUnknownError, SessionError
from ctxcache.gateway import Prompt
from ctxcache.models import assistant, system, user
from ctxcache.testing import Clock, RecordingGateway

MODEL = "Doubao-1.5-pro-32k"
MANUAL = system("The warranty lasts two years. " * 50)


@pytest.fixture
async def session(gateway: RecordingGateway) -> AsyncIterator[AsyncSession]:
    """A session on the gateway."""
    async with AsyncSession(gateway.api_key, gateway.base_url, retry=0) as session:
        yield session


# --- start and end


def test_it_runs_beside_code_that_blocks(gateway: RecordingGateway) -> None:
    """Code without an event loop, or with one of its own, may call the gateway."""

    async def ask() -> str:
        async with AsyncSession(gateway.api_key, gateway.base_url) as session:
            return (await Prefix(session, model=MODEL, messages=[MANUAL]).ask("How long?")).text

    assert "you said: How long?" in asyncio.run(ask())
    assert "you said: How long?" in asyncio.run(ask())
    assert len(gateway.contexts) == 2


def test_it_ends_with_the_block() -> None:
    """The end of the block leaves no thread; the record stays, and the gateway may be started again."""
    before = threading.active_count()
    gateway = RecordingGateway()
    for _ in range(2):
        with gateway:
            assert repr(gateway) == f"RecordingGateway('{gateway.base_url}')"
            with pytest.raises(SessionError, match="running already"):
                gateway.start()
        gateway.close()
        assert threading.active_count() == before
    assert gateway.calls == ()
    assert gateway.expire("ctx-unknown") is False


def test_a_start_that_fails_leaves_no_thread() -> None:
    """A port in use is the error of the gateway, and no thread is left."""
    with RecordingGateway() as one:
        before = threading.active_count()
        with pytest.raises(APIConnectionError, match="cannot listen"):
            RecordingGateway(port=int(one.base_url.split(":")[2].split("/")[0])).start()
        assert threading.active_count() == before


def test_settings_are_those_of_a_gateway() -> None:
    """A setting out of range is refused."""
    with pytest.raises(InvalidInputError, match="fault must be"):
        RecordingGateway(faults="explode")


# --- faults and the clock


async def test_faults_are_set_from_the_test(gateway: RecordingGateway, session: AsyncSession) -> None:
    """Faults are set and healed from the thread of the test, an outage included."""
    prefix = Prefix(session, model=MODEL, messages=[MANUAL])
    await prefix.ask("One?")
    with gateway.fail(500, on="chat") as fault, pytest.raises(InternalServerError):
        await prefix.ask("Two?")
    assert fault.struck == 1
    gateway.outage()
    with pytest.raises(APIConnectionError):
        await prefix.ask("Two?")
    gateway.heal()
    assert (await prefix.ask("Two?")).text
    assert [call.faults for call in gateway.calls if call.faults] == [("fail",)]


async def test_the_clock_expires_contexts() -> None:
    """A clock that moves beyond the ttl expires contexts."""
    clock = Clock()
    with RecordingGateway(clock=clock) as gateway:
        async with AsyncSession(gateway.api_key, gateway.base_url) as session:
            context = await session.context.create(model=MODEL, messages=[MANUAL], ttl=3600)
            assert gateway.messages(context.id) == (MANUAL,)
            clock.advance(3601)
            assert gateway.messages(context.id) is None


class Calling:
    """An engine that uses the gateway which it is of."""

    gateway: RecordingGateway

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write how many calls there are."""
        yield f"{len(self.gateway.calls)} call"


async def test_an_engine_may_use_its_gateway() -> None:
    """A method called in the gateway's own thread does not wait for itself."""
    engine = Calling()
    with RecordingGateway(engine=engine) as engine.gateway:
        async with AsyncSession(engine.gateway.api_key, engine.gateway.base_url) as session:
            answer = await Prefix(session, model=MODEL, messages=[MANUAL]).ask("How many?")
    assert answer.text == "2 call"


# --- the record


async def test_what_was_called(gateway: RecordingGateway, session: AsyncSession) -> None:
    """The record has the requests, the answers, what was stored and the usage, in the order of the calls."""
    with gateway.reply("Two years."):
        chat = Conversation(session, model=MODEL, messages=[MANUAL])
        await chat.ask("How long?")
        async with chat.stream("Sure?") as stream:
            await stream.finish()
    create, plain, streamed = gateway.calls
    assert (create.endpoint, create.number, create.whole, create.stored) == ("create", 1, True, True)
    assert create.messages == (MANUAL,)
    for call, question in ((plain, "How long?"), (streamed, "Sure?")):
        assert (call.endpoint, call.status, call.whole, call.stored) == ("chat", 200, True, True)
        assert (call.messages, call.text, call.context_id) == ((user(question),), "Two years.", create.context_id)
        assert call.usage is not None
        assert call.usage.cached_tokens > 300
        assert call.ended is not None
        assert call.ended >= call.began
    assert gateway.contexts == (create.context_id,)


async def test_a_transcript_outlives_the_context(gateway: RecordingGateway, session: AsyncSession) -> None:
    """A transcript has every stored turn, also of a context that has ended; other ids are refused."""
    gateway.reply("Yes.")
    chat = Conversation(session, model=MODEL, messages=[MANUAL])
    await chat.ask("One?")
    await chat.ask("Two?")
    (context,) = gateway.contexts
    assert gateway.expire(context)
    turns = [user("One?"), assistant("Yes."), user("Two?"), assistant("Yes.")]
    assert gateway.transcript(context) == (MANUAL, *turns)
    with pytest.raises(InvalidInputError, match="context_id must be the id of a context that this gateway made"):
        gateway.transcript("ctx-unknown")


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_that_did_not_end_well(gateway: RecordingGateway, session: AsyncSession, stream: bool) -> None:
    """The record tells refusals, cuts and lost answers apart, and what each of them stored."""
    context = await session.context.create(model=MODEL, messages=[MANUAL])
    lines = ["rate_limit=7", "disconnect=2", "truncate=2", "corrupt=2", "lose_reply=2", "lose_reply=0"]
    for line in lines:
        with gateway.set_fault(line), pytest.raises(Exception, match=r"."):
            answer = await session.chat.create(context_id=context.id, model=MODEL, messages=[user(line)], stream=stream)
            if stream:
                await answer.finish()  # type: ignore[attr-defined]
    refused, cut, truncated, corrupt, lost, lost_whole = gateway.calls[1:]
    assert (refused.status, refused.retry_after, refused.refused) == (429, 7, True)
    assert refused.code == "RateLimitExceeded.EndpointRPMExceeded"
    statuses = [200, 200, 200, 200, None] if stream else [None, 200, 200, None, None]
    assert [call.status for call in (cut, truncated, corrupt, lost, lost_whole)] == statuses
    assert [call.stored for call in (refused, cut, truncated, corrupt, lost, lost_whole)] == [False] * 3 + [True] * 3
    assert not any(call.whole or call.left for call in gateway.calls[1:])


async def test_a_client_that_leaves(gateway: RecordingGateway, session: AsyncSession) -> None:
    """A client that gives up on a stalled answer has left, and has a timeout; one that stays until the cut has none."""
    context = await session.context.create(model=MODEL, messages=[MANUAL])
    gateway.stall(on="chat")
    with pytest.raises(OutcomeUnknownError):
        await session.chat.create(context_id=context.id, model=MODEL, messages=[user("x")], timeouts=0.2)
    async with asyncio.timeout(5):
        while not gateway.calls[-1].left:  # noqa: ASYNC110  # the gateway sees the end a moment later
            await asyncio.sleep(0)
    gateway.assert_resilient()
    gateway.heal()
    gateway.stall(0.01)
    with pytest.raises(OutcomeUnknownError):
        await session.chat.create(context_id=context.id, model=MODEL, messages=[user("y")])
    assert [finding.name for finding in gateway.findings()] == ["no_read_timeout"]


# --- verdicts


async def test_one_context(gateway: RecordingGateway, session: AsyncSession) -> None:
    """Exactly one context must be made."""
    with pytest.raises(AssertionError, match="one context must be made, got 0"):
        gateway.assert_one_context()
    await session.context.create(model=MODEL, messages=[MANUAL])
    gateway.assert_one_context()
    await session.context.create(model=MODEL, messages=[MANUAL])
    with pytest.raises(AssertionError, match=f"got 2: {', '.join(gateway.contexts)}"):
        gateway.assert_one_context()


async def test_cached_tokens(gateway: RecordingGateway, session: AsyncSession) -> None:
    """The share of the cached tokens must be so large."""
    with pytest.raises(AssertionError, match=r"90.0% of the prompt tokens must be cached, got no chat with a usage"):
        gateway.assert_cached_at_least(0.9)
    await Prefix(session, model=MODEL, messages=[MANUAL]).ask("How long?")
    gateway.assert_cached_at_least(0.9)
    with pytest.raises(AssertionError, match=r"100.0% of the prompt tokens must be cached, got 99.\d%"):
        gateway.assert_cached_at_least(1)
    with pytest.raises(InvalidInputError, match=r"share must be a number in \[0, 1\], got 90"):
        gateway.assert_cached_at_least(90)


async def test_turns(gateway: RecordingGateway, session: AsyncSession) -> None:
    """Every question must be stored, and stored once."""
    context = await session.context.create(model=MODEL, messages=[MANUAL])

    async def ask(text: str) -> None:
        await session.chat.create(context_id=context.id, model=MODEL, messages=[user(text)])

    with gateway.rate_limit(), pytest.raises(Exception, match="429"):
        await ask("one")
    with pytest.raises(AssertionError, match="call 2 was not stored: 'one'"):
        gateway.assert_no_turn_lost_or_doubled()
    await ask("one")
    gateway.assert_no_turn_lost_or_doubled()
    with gateway.lose_reply(), pytest.raises(OutcomeUnknownError):
        await ask("two" * 50)
    gateway.assert_no_turn_lost_or_doubled()
    await ask("two" * 50)
    with pytest.raises(AssertionError, match=r"calls 4 and 5 stored the same turn: 'twotwo.*…'"):
        gateway.assert_no_turn_lost_or_doubled()


async def test_findings(gateway: RecordingGateway, session: AsyncSession) -> None:
    """Findings fail the test by name, unless allowed; a name that there is not is refused."""
    context = await session.context.create(model=MODEL, messages=[MANUAL])
    given: Any = {"context_id": context.id, "model": MODEL, "messages": [user("one")]}
    gateway.assert_resilient()
    with gateway.lose_reply(), pytest.raises(OutcomeUnknownError):
        await session.chat.create(**given)
    await session.chat.create(**given)
    with pytest.raises(AssertionError, match=r"^turn_repeated: .* \(calls 2, 3\)$"):
        gateway.assert_resilient()
    gateway.assert_resilient(allow=["turn_repeated"])
    assert [finding.name for finding in gateway.findings()] == ["turn_repeated"]
    with pytest.raises(InvalidInputError, match="allow must be 'retry_after_ignored' or "):
        gateway.assert_resilient(allow=["everything"])
