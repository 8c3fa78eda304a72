"""A Redis server for all tests of the states, and gateways in processes of their own."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from ctxcache import AsyncSession, Context, system, user

from ...managed.redis_server import BINARY, NO_BINARY, redis_server

MODEL = "Doubao-1.5-pro-32k"
PROGRAM = Path(__file__).with_name("killed_gateway.py")


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """The URL of a real server, one for all tests."""
    if BINARY is None:
        pytest.skip(NO_BINARY)
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """The URL of a real server that is empty."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushall()
    return redis_server_url


@pytest.fixture
def commands(redis_url: str) -> Iterator[Callable[[], int]]:
    """Count the scripts that the server has run."""
    with redis.Redis.from_url(redis_url) as client:

        def count() -> int:
            stats: Any = client.info("commandstats")
            return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))

        yield count


class Running:
    """A gateway in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], session: AsyncSession) -> None:
        self.process = process
        self.session = session

    async def create(self, text: str = "Be kind.") -> Context:
        """Create a session."""
        return await self.session.context.create(model=MODEL, messages=[system(text)])

    async def ask(self, context: Context, question: str) -> str:
        """Ask in a session, and read the whole streamed answer."""
        chat = {"context_id": context.id, "model": MODEL, "messages": [user(question)]}
        async with self.session.chat.stream(**chat) as stream:
            return (await stream.finish()).text

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()


Spawn: TypeAlias = Callable[..., Awaitable[Running]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start gateways as processes of their own, with the settings of `killed_gateway.py`."""
    async with contextlib.AsyncExitStack() as stack:

        def open_process(settings: dict[str, Any]) -> subprocess.Popen[str]:
            command = [sys.executable, str(PROGRAM), json.dumps(settings)]
            return stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

        async def start(**settings: Any) -> Running:
            process = open_process(settings)
            stack.callback(process.kill)
            assert process.stdout is not None
            url = (await asyncio.to_thread(process.stdout.readline)).strip()
            session = AsyncSession("sk-of-the-test", url, retry=0)
            return Running(process, await stack.enter_async_context(session))

        yield start
