"""`ctxcache serve --state redis://…`: replicas behind a round-robin, restarted one after the other."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from ctxcache import AsyncSession, Context, system, user
from ctxcache.gateway.state import RedisState

from ..managed.redis_server import BINARY, NO_BINARY, redis_server

KEY = "sk-of-the-replicas"
MODEL = "Doubao-1.5-pro-32k"
OPTIONS = ("--port", "0", "--pieces-per-second", "200", "--first-token-delay", "0", "--length", "10", "--grace", "20")


class RoundRobin:
    """Hands each connection to the next replica that takes it, and passes bytes on both ways."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._turn = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        for _ in range(2 * len(self.ports)):
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection("127.0.0.1", self.ports[next(self._turn) % len(self.ports)])
                await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
                return
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def balanced() -> AsyncIterator[tuple[RoundRobin, AsyncSession]]:
    """A round-robin without replicas, and a session that calls it."""
    balancer = RoundRobin()
    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with AsyncSession(KEY, f"http://127.0.0.1:{port}/v1") as session:
        yield balancer, session
    server.close()


@pytest.mark.skipif(BINARY is None, reason=NO_BINARY)
async def test_a_rolling_restart_loses_no_call(
    spawn: Callable[..., "subprocess.Popen[str]"], balanced: tuple[RoundRobin, AsyncSession]
) -> None:
    """Two replicas under load, each ended and replaced in turn: every call is answered, every turn stored once."""
    balancer, session = balanced
    with redis_server() as url:

        async def start() -> "subprocess.Popen[str]":
            server = spawn("serve", "--state", url, "--key", KEY, *OPTIONS)
            assert server.stdout is not None
            line = await asyncio.to_thread(server.stdout.readline)
            balancer.ports.append(int(line.rpartition(":")[2].split("/")[0]))
            return server

        async def replace(server: "subprocess.Popen[str]", port: int) -> "subprocess.Popen[str]":
            successor = await start()
            server.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
            balancer.ports.remove(port)
            return successor

        servers = [await start() for _ in range(2)]
        contexts = [await session.context.create(model=MODEL, messages=[system("x")]) for _ in range(10)]
        asked: dict[str, int] = {}
        ending = asyncio.Event()
        talks = [asyncio.create_task(converse(session, context, asked, ending)) for context in contexts]
        first, second = balancer.ports
        for server, port in zip(servers, (first, second), strict=True):
            await replace(server, port)
        ending.set()
        await asyncio.gather(*talks)
        assert sum(asked.values()) > 40
        state = RedisState(url)
        for context in contexts:
            record = await state.find(context.id, "")
            assert record is not None
            kept = [sized.message.text for sized in record.history[::2]]
            assert kept == [f"Question {number}?" for number in range(asked[context.id])]
        await state.aclose()


async def converse(session: AsyncSession, context: Context, asked: dict[str, int], ending: asyncio.Event) -> None:
    """Ask, plain and streamed in turn, until told to end."""
    for number in count():
        chat = {"context_id": context.id, "model": MODEL, "messages": [user(f"Question {number}?")]}
        if number % 2:
            await session.chat.create(**chat)
        else:
            async with session.chat.stream(**chat) as stream:
                await stream.finish()
        asked[context.id] = number + 1
        if ending.is_set():
            return
