"""Clients that are slow, silent, or do not read; limits are small."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache.gateway import MODELS, GatewayLimits
from ctxcache.gateway.connection import Connection, Connections

from .raw import post

BIG = {MODELS[0]: 1_000_000_000}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = b"/v1/context/chat/completions"
SHORT: Any = {"head_seconds": 0.04, "idle_seconds": 0.04, "write_seconds": 0.04}


class Endless:
    """An engine that writes without a wait, until the reply is cut."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.pieces = 10_000

    async def generate(self, prompt: Any) -> AsyncIterator[str]:
        """Write."""
        try:
            for _ in range(self.pieces):
                yield "word " * 2000
        finally:
            self.closed.set()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the end of the connection, however that comes."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("sent", [b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: loc", b"\r\n", HEALTH[:-1]])
async def test_a_head_that_does_not_end_is_408(start: Any, sent: bytes) -> None:
    """A head that has begun must end within the limit."""
    api = await start(limits=GatewayLimits(head_seconds=0.04))
    reader, _ = await api.connect(sent)
    async with asyncio.timeout(5):
        answer = await read_all(reader)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in head
    error = json.loads(body)["error"]
    assert (error["type"], error["message"][:59]) == (
        "RequestTimeout",
        "The head of the request did not come within 0.04 s. Request",
    )


async def test_a_head_that_trickles_is_cut(start: Any) -> None:
    """A byte now and then does not prolong the limit."""
    api = await start(limits=GatewayLimits(head_seconds=0.04))
    reader, writer = await api.connect(b"GET /healthz HTTP/1.1\r\nX: ")
    end = asyncio.create_task(read_all(reader))
    async with asyncio.timeout(5):
        while not (end.done() or writer.is_closing()):
            writer.write(b"x")
            await asyncio.sleep(0)
    assert (await end).startswith(b"HTTP/1.1 408 ") or await end == b""  # reset, since we wrote on


@pytest.mark.parametrize("sent", [b"", HEALTH, HEALTH * 3])
async def test_an_idle_connection_is_closed(start: Any, sent: bytes) -> None:
    """A connection without a request is closed after the limit, before the first request and between requests."""
    api = await start(limits=GatewayLimits(idle_seconds=0.04))
    reader, _ = await api.connect(sent)
    async with asyncio.timeout(5):
        assert (await read_all(reader)).count(b"200 OK") == len(sent) // len(HEALTH)


async def test_limits_do_not_end_an_answer_under_way(start: Any, dictated: Any) -> None:
    """An engine may think for longer than every limit: the client is not the one who waits."""
    api = await start(engine=dictated, limits=GatewayLimits(**SHORT, body_seconds=0.04))
    created = await api.create()
    chat = asyncio.create_task(api.chat(created["id"], stream=True))
    async with asyncio.timeout(5):
        await dictated.started.wait()
        idle, _ = await api.connect()
        await read_all(idle)  # the limit of another connection has passed
        dictated.say("late", None)
        assert (await chat).chunks[1]["choices"][0]["delta"] == {"content": "late"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_does_not_read_is_cut_and_the_session_is_free(start: Any, stream: bool) -> None:
    """A client that takes nothing of an answer holds the session no longer than the limit."""
    engine = Endless()
    engine.pieces = 10_000 if stream else 2000  # a plain answer of 20 MB
    api = await start(engine=engine, models=BIG, limits=GatewayLimits(write_seconds=0.04))
    created = await api.create()
    body = json.dumps(api.chat_body(created["id"], "hello", stream=stream)).encode()
    await api.connect(post(body, path=CHAT, key=api.gateway.api_key))
    async with asyncio.timeout(10):
        await engine.closed.wait()
        engine.pieces = 1
        answer = await api.chat(created["id"])
        while answer.status == 403:
            answer = await api.chat(created["id"])
        assert answer.status == 200


# --- what counts as progress, with a transport that only tells how much waits -----------------------------------------


class Waiting(asyncio.Transport):
    """A transport whose client has not taken so many bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.closing = self.aborted = False

    def get_write_buffer_size(self) -> int:
        """Tell how much waits."""
        return self.size

    def is_closing(self) -> bool:
        """Tell whether the end has begun."""
        return self.closing

    def close(self) -> None:
        """End when everything is taken."""
        self.closing = True

    def abort(self) -> None:
        """End now."""
        self.aborted = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes."""
        self.size += len(data)


Made = tuple[Connection, Waiting]


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    """A connection whose client has 10 s for every 4 KiB, and the transport."""
    app: Any = None
    connections = Connections(app, GatewayLimits(write_seconds=10))
    connection, transport = connections(), Waiting()
    connection.connection_made(transport)
    yield connection, transport
    connection.connection_lost(None)
    await connections.aclose(0)
    await asyncio.sleep(0)


def looks(made: Made, *sizes: int) -> list[bool]:
    """Look at the connection every second, with so many bytes waiting; tell when the connection was cut."""
    connection, transport = made
    cut = []
    for second, size in enumerate(sizes):
        transport.size = size
        connection.cut_if_slow(float(second))
        cut.append(transport.aborted)
    return cut


async def test_no_progress_for_the_limit_is_the_end(made: Made) -> None:
    """A client that takes nothing is cut when the limit has passed, not before."""
    made[0].pause_writing()
    assert looks(made, *[70_000] * 11) == [False] * 10 + [True]


async def test_a_trickle_is_no_progress(made: Made) -> None:
    """Fewer than 4 KiB within the limit are as good as nothing."""
    made[0].pause_writing()
    assert looks(made, *range(70_000, 65_600, -400))[-1]


async def test_a_slow_reader_is_not_cut(made: Made) -> None:
    """A client that takes 4 KiB within the limit may go on for ever."""
    made[0].pause_writing()
    assert not any(looks(made, *range(200_000, 20_000, -500)))


async def test_the_last_writes_before_the_hold_are_no_setback(made: Made) -> None:
    """Bytes that the engine adds before it is held up do not hide that the client reads."""
    made[0].pause_writing()
    assert not any(looks(made, 70_000, 130_000, *range(130_000, 20_000, -600)))


async def test_what_waits_while_the_engine_thinks_is_not_looked_at(made: Made) -> None:
    """Less than the engine is held up by may wait as long as the answer takes."""
    assert not any(looks(made, *[30_000] * 50))
    made[0].pause_writing()
    made[0].resume_writing()
    assert not any(looks(made, *[10_000] * 50))


async def test_a_connection_that_closes_is_cut_all_the_same(made: Made) -> None:
    """The last bytes before the end must be taken, too, however few."""
    made[1].closing = True
    assert looks(made, *[100] * 11) == [False] * 10 + [True]
