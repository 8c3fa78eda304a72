"""The runs of a Gateway: one at a time, and none leaves the engine running, whatever is cancelled or called at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import SessionError
from ctxcache.gateway import Gateway, Prompt


class Held:
    """An engine that notes starts and closes, and holds up each step that a test names until `go` is set."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.calls: list[str] = []
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        """Begin."""
        await self._step("start")

    async def aclose(self) -> None:
        """End."""
        await self._step("aclose")

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write, and take a while to stop when cancelled."""
        try:
            self.reached.set()
            await asyncio.Event().wait()
            yield ""
        except asyncio.CancelledError:
            await self._step("cancelled")
            raise

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.held:
            self.reached.set()
            await self.go.wait()


async def begin(work: Any, engine: Held) -> "asyncio.Task[Any]":
    """Begin work, and go on until the engine is held up."""
    engine.reached.clear()
    task = asyncio.create_task(work)
    async with asyncio.timeout(5):
        await engine.reached.wait()
    return task


async def test_a_second_start_leaves_the_engine_alone() -> None:
    """Of two starts at once on one fixed port, one is refused before the engine is called."""
    async with Gateway() as other:
        port = other.port
    engine = Held("start")
    gateway = Gateway(engine=engine, port=port)
    first = await begin(gateway.start(), engine)
    with pytest.raises(SessionError, match="running already"):
        await gateway.start()
    engine.go.set()
    await first
    assert engine.calls == ["start"]
    assert repr(gateway) == f"Gateway('http://127.0.0.1:{port}/v1')"
    await gateway.aclose()
    assert engine.calls == ["start", "aclose"]


async def test_a_cancelled_start_closes_the_engine() -> None:
    """A start that is cancelled while the engine starts leaves nothing running, and may be repeated."""
    engine = Held("start")
    gateway = Gateway(engine=engine)
    start = await begin(gateway.start(), engine)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    assert engine.calls == ["start", "aclose"]
    engine.go.set()
    async with gateway:
        assert gateway.port


async def test_a_start_that_is_closed_is_refused() -> None:
    """A gateway that is closed before the start has ended does not run, and the close waits for the engine's end."""
    engine = Held("start")
    gateway = Gateway(engine=engine)
    start = await begin(gateway.start(), engine)
    close = asyncio.create_task(gateway.aclose())
    await asyncio.sleep(0)
    assert not close.done()
    engine.go.set()
    await close
    assert engine.calls == ["start", "aclose"]
    with pytest.raises(SessionError, match="the gateway was closed before the start had ended"):
        await start
    assert repr(gateway) == "Gateway(not running)"


async def test_a_cancelled_close_closes_the_engine(start: Any) -> None:
    """A close that is cancelled while an answer is slow to stop closes the engine all the same."""
    engine = Held("cancelled")
    api = await start(engine=engine, _leave_seconds=60)
    chat = asyncio.create_task(api.chat((await api.create())["id"]))
    async with asyncio.timeout(5):
        await engine.reached.wait()
    close = await begin(api.gateway.aclose(), engine)
    close.cancel()
    await asyncio.wait([close])
    assert close.cancelled()
    assert engine.calls == ["start", "cancelled", "aclose"]
    engine.go.set()
    await asyncio.wait([chat])
    assert chat.exception() is not None
    await api.gateway.start()


async def test_each_close_waits_for_the_end(start: Any) -> None:
    """A second close returns after the first, and a start before that is refused."""
    engine = Held("aclose")
    api = await start(engine=engine)
    first = await begin(api.gateway.aclose(), engine)
    second = asyncio.create_task(api.gateway.aclose(grace=5))
    with pytest.raises(SessionError, match="running already"):
        await api.gateway.start()
    assert not second.done()
    engine.go.set()
    await asyncio.gather(first, second)
    assert engine.calls == ["start", "aclose"]
