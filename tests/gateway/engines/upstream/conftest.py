"""A gateway before servers that play what a test tells them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ctxcache.gateway import UpstreamEngine
from tests.hostile import Hostile

UPSTREAM_KEY = "sk-of-the-upstream"


class Naps:
    """A sleep that ends only when a test says so."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.naps = 0

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        self.naps += 1
        await self.wake.wait()
        self.wake.clear()


@pytest.fixture
def naps() -> Naps:
    """The sleep between the probes of all engines of a test."""
    return Naps()


@pytest.fixture
async def second(quiet_loop: None) -> AsyncIterator[Hostile]:
    """A second server."""
    async with Hostile() as server:
        yield server


Relay = Callable[..., Awaitable[Any]]


@pytest.fixture
async def relay(start: Any, hostile: Hostile, naps: Naps) -> AsyncIterator[Relay]:
    """Start a gateway before servers (default: `hostile`), as `start` does; what an engine holds is gone at the end."""
    async with AsyncExitStack() as stack:

        async def make(*servers: Hostile, clock: Any = None, gateway: Any = None, **settings: Any) -> Any:
            settings = {"kind": "openai", "warm": False, "sleep": naps, **settings}
            if clock is not None:
                settings["clock"] = clock
            engine = UpstreamEngine([server.url for server in servers or (hostile,)], **settings)
            stack.push_async_callback(engine.aclose)
            return await start(engine=engine, **(gateway or {}))

        yield make
