"""Faults are set and healed while the gateway runs, and seen by the client of this package."""

import asyncio
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    AsyncSession,
    ContextBusyError,
    ContextGoneError,
    InternalServerError,
    MalformedStreamError,
    OutcomeUnknownError,
    RateLimitError,
    Retry,
    StreamInterruptedError,
    user,
)
from ctxcache.errors import InvalidInputError
from ctxcache.gateway import Fault, Gateway

from .conftest import Client

MODEL = "Doubao-1.5-pro-32k"
QUICK = Retry(attempts=3, first_delay=0)


@pytest.fixture
def session(client: Client) -> AsyncSession:
    """A session; closed with the test's loop, since it is a context manager in each test."""
    return AsyncSession(client.gateway.api_key, client.gateway.base_url, retry=QUICK)


@pytest.mark.parametrize(
    ("line", "stream", "error"),
    [
        ("chat:fail=503", False, InternalServerError),
        ("chat:fail=503", True, InternalServerError),
        ("chat:rate_limit=0", False, RateLimitError),
        ("chat:busy", True, ContextBusyError),
        ("chat:expire", False, ContextGoneError),
        ("chat:disconnect", False, OutcomeUnknownError),
        ("chat:disconnect=2", True, StreamInterruptedError),
        ("chat:truncate", False, OutcomeUnknownError),
        ("chat:truncate=2", True, StreamInterruptedError),
        ("chat:stall=0", False, OutcomeUnknownError),
        ("chat:stall=0", True, StreamInterruptedError),
        ("chat:corrupt", False, OutcomeUnknownError),
        ("chat:corrupt", True, MalformedStreamError),
        ("chat:lose_reply", False, OutcomeUnknownError),
        ("chat:lose_reply=2", True, StreamInterruptedError),
    ],
)
async def test_the_client_meets_each_fault(
    client: Client, session: AsyncSession, line: str, stream: bool, error: Any
) -> None:
    """The client of this package raises the error of the fault, and works again once the fault is healed."""
    async with session:

        async def ask() -> str:
            given: Any = {"context_id": client.context, "model": MODEL, "messages": [user("hello")]}
            if not stream:
                return (await session.chat.create(**given)).text
            async with session.chat.stream(**given) as answer:
                return (await answer.finish()).text

        fault = client.gateway.set_fault(line)
        with pytest.raises(error):
            await ask()
        assert fault.struck >= 1
        fault.heal()
        if "expire" not in line:
            assert "you said: hello" in await ask()


async def test_refused_then_answered(client: Client, session: AsyncSession) -> None:
    """A fault with `times` ends by itself: the client's third attempt is answered."""
    fault = client.gateway.rate_limit(0, times=2)
    async with session:
        given: Any = {"context_id": client.context, "model": MODEL, "messages": [user("hello")]}
        assert "you said" in (await session.chat.create(**given)).text
    assert fault.struck == 2


async def test_an_outage_refuses_connections(client: Client) -> None:
    """An outage cuts open connections and refuses new ones, at the same port, until healed; no call ran."""
    gateway, url = client.gateway, client.gateway.base_url
    _, writer = await client.api.connect()
    with gateway.outage():
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.port)
        async with AsyncSession(gateway.api_key, url, retry=QUICK) as session:
            with pytest.raises(APIConnectionError) as failed:
                await session.chat.create(context_id=client.context, model=MODEL, messages=[user("hello")])
        assert (failed.value.sent, failed.value.attempts) == (False, 3)
        assert not isinstance(failed.value, OutcomeUnknownError)
    assert (await client.chat()).status == 200
    assert (gateway.base_url, client.turns) == (url, 1)
    writer.close()


async def test_a_gateway_that_starts_in_an_outage() -> None:
    """An outage from the start lasts until healed, over a stop and a start, too."""
    async with Gateway(faults=[Fault("outage")]) as gateway:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.port)
    async with gateway:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.port)
        gateway.heal()
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.close()


async def test_heal_ends_all(client: Client) -> None:
    """`heal` ends every fault; a handle that was healed may be healed again."""
    faults = [client.gateway.fail(503), client.gateway.busy(), client.gateway.no_usage()]
    client.gateway.heal()
    for fault in faults:
        fault.heal()
    assert (await client.chat()).status == 200
    assert [fault.struck for fault in faults] == [0, 0, 0]


def test_a_handle_says_what_was_set() -> None:
    """A handle has the fault, and shows how often it struck."""
    fault = Gateway().fail(503, on="chat", nth=3, times=2, probability=0.5, seed=1)
    assert fault.fault == Fault("fail", status=503, on="chat", nth=3, times=2, probability=0.5, seed=1)
    assert repr(fault) == "SetFault('fail', struck=0)"


def test_every_kind_has_a_method() -> None:
    """Each kind of fault is set by the method of that name."""
    gateway: Any = Gateway()
    arguments = {"fail": [503], "delay": [1], "slow_first_token": [1], "reply": ["x"]}
    for kind in sorted(_kinds()):
        options = {"rpm": 1} if kind == "limits" else {}
        assert getattr(gateway, kind)(*arguments.get(kind, []), **options).fault.kind == kind


def _kinds() -> set[str]:
    with pytest.raises(InvalidInputError) as refused:
        Fault("?")
    return set(refused.value.allowed.replace("'", "").split(" or "))


@pytest.mark.parametrize(
    ("faults", "message"), [("explode", "fault must be "), ([5], "fault must be a Fault, or text")]
)
def test_a_wrong_fault_is_refused_when_the_gateway_is_made(faults: Any, message: str) -> None:
    """A fault that cannot be read is an error of the constructor."""
    with pytest.raises(InvalidInputError, match=message):
        Gateway(faults=faults)


async def test_one_fault_needs_no_list() -> None:
    """A single line, or a single fault, may stand for the list."""
    for fault in ("fail=503", Fault("fail", status=503)):
        async with (
            Gateway(faults=fault) as gateway,
            AsyncSession(gateway.api_key, gateway.base_url, retry=0) as session,
        ):
            with pytest.raises(InternalServerError):
                await session.context.create(model=MODEL, messages=[user("x")])


def test_expire_still_tells_of_a_context() -> None:
    """`expire` with an id expires that context now."""
    assert Gateway().expire("ctx-unknown") is False
