"""The supervisor: a server that ends or hangs is replaced, calls wait for the next."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ctxcache.errors import APIConnectionError, InternalServerError
from ctxcache.gateway.engines.llama.server import LlamaServer
from ctxcache.gateway.engines.llama.supervisor import Supervision, Supervisor

StartServer = Callable[..., Awaitable[LlamaServer]]


class Time:
    """Time that passes only where the supervisor waits between two starts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Note a wait, and let everything else run once."""
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    """The time of the supervisor."""
    return Time()


@pytest.fixture
async def supervise(start_server: StartServer, time: Time) -> AsyncIterator[Callable[..., Supervisor]]:
    """Make supervisors, which end with the test."""
    made: list[Supervisor] = []

    def make(start: Callable[[], Awaitable[LlamaServer]] = start_server, **times: Any) -> Supervisor:
        times = {"probe": 0.01, "hung": 20.0, "clock": time.clock, "sleep": time.sleep, **times}
        made.append(Supervisor(start, Supervision(**times)))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.aclose()


def kill(server: LlamaServer, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a server, whose repr tells the process."""
    os.kill(int(repr(server).removesuffix(">").rpartition(" ")[2]), number)


async def next_server(supervisor: Supervisor, last: LlamaServer) -> LlamaServer:
    """Wait for the server after `last`."""
    async with asyncio.timeout(20):
        return await supervisor.server(after=last)


async def test_a_killed_server_is_replaced(supervise: Callable[..., Supervisor], time: Time) -> None:
    """After a steady life the next server comes at once, and answers."""
    supervisor = supervise()
    first = await supervisor.start()
    assert await supervisor.server() is first
    time.now += 60
    kill(first)
    second = await next_server(supervisor, first)
    await second.answers()
    assert time.waits == []


async def test_a_hung_server_is_killed_and_replaced(
    supervise: Callable[..., Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that gives no sign of life is ended, so that nobody waits for its answer."""
    supervisor = supervise(hung=0.3)
    first = await supervisor.start()
    kill(first, signal.SIGSTOP)
    second = await next_server(supervisor, first)
    await second.answers()
    assert await first.ended() == "signal 9"
    assert "llama.cpp ended (no sign of life for 0.3 s) and is started again" in caplog.text


async def test_short_lives_are_waited_for(supervise: Callable[..., Supervisor], time: Time) -> None:
    """Servers that end soon after their start come back after waits that double; a steady life ends that."""
    supervisor = supervise(first_delay=1.0, max_delay=3.0)
    server = await supervisor.start()
    for _ in range(4):
        kill(server)
        server = await next_server(supervisor, server)
    assert time.waits == [1.0, 2.0, 3.0, 3.0]
    time.now += 60
    kill(server)
    server = await next_server(supervisor, server)
    kill(server)
    await next_server(supervisor, server)
    assert time.waits[4:] == [1.0]


async def test_failed_starts_are_repeated(
    supervise: Callable[..., Supervisor], start_server: StartServer, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that fails after the first is tried again, with a line in the log each time."""
    starts = iter(["", "broken", "broken", ""])
    supervisor = supervise(lambda: start_server(next(starts)), first_delay=1.0)
    first = await supervisor.start()
    time.now += 60
    kill(first)
    await (await next_server(supervisor, first)).answers()
    assert time.waits == [1.0, 2.0]
    assert caplog.text.count("cannot be started again: llama.cpp cannot load small.gguf: ") == 2


async def test_a_fault_of_our_own_ends_no_supervision(
    supervise: Callable[..., Supervisor],
    start_server: StartServer,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception that nobody foresaw, in a look, an end or a start, is logged, and a server is started anyway."""
    failures = iter([RuntimeError("a start"), ValueError("another start")])

    async def start() -> LlamaServer:
        if len(started) == 1 and (failure := next(failures, None)):
            raise failure
        started.append(await start_server())
        return started[-1]

    started: list[LlamaServer] = []
    supervisor = supervise(start, first_delay=1.0)
    first = await supervisor.start()
    end, looked = first.aclose, asyncio.Event()

    async def answers() -> None:
        looked.set()
        raise LookupError("a look")

    async def aclose() -> None:
        await end()
        raise KeyError("an end")

    monkeypatch.setattr(first, "answers", answers)
    monkeypatch.setattr(first, "aclose", aclose)
    async with asyncio.timeout(20):
        await looked.wait()
    kill(first)
    second = await next_server(supervisor, first)
    await second.answers()
    monkeypatch.undo()
    assert time.waits == [1.0, 2.0, 4.0]
    for told in ("a look", "an end", "a start", "another start"):
        assert told in caplog.text


async def test_the_first_start_is_the_callers(supervise: Callable[..., Supervisor], start_server: StartServer) -> None:
    """The failure of the first start is raised, and nothing is repeated."""
    with pytest.raises(APIConnectionError, match="it is broken"):
        await supervise(lambda: start_server("broken")).start()


async def test_patience_ends(supervise: Callable[..., Supervisor], start_server: StartServer) -> None:
    """A call that gets no server within the limit is refused with 503."""
    never = asyncio.Event()
    starts = iter([start_server, never.wait])
    supervisor = supervise(lambda: next(starts)(), patience=0.05)
    first = await supervisor.start()
    kill(first)
    await first.ended()
    async with asyncio.timeout(20):
        while True:
            try:
                await supervisor.server()
                await asyncio.sleep(0)
            except InternalServerError as error:
                assert (error.status, error.code) == (503, "ServerOverloaded")
                return


async def test_aclose_during_a_start(supervise: Callable[..., Supervisor], start_server: StartServer) -> None:
    """`aclose` ends a start that is under way, and starts no further server."""
    begun = asyncio.Event()

    async def endless() -> LlamaServer:
        begun.set()
        return await start_server("endless")

    starts = iter([start_server, endless])
    supervisor = supervise(lambda: next(starts)())
    kill(await supervisor.start())
    await begun.wait()
    await supervisor.aclose()
    assert next(starts, None) is None
    await supervisor.aclose()
