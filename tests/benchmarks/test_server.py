"""The load server sends what the load's name says, and keeps true books."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from benchmarks import loads
from benchmarks.accounting import Meter, server_stats


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A session of aiohttp's."""
    async with aiohttp.ClientSession() as session:
        yield session


def url(port: int) -> str:
    """The endpoint."""
    return f"http://127.0.0.1:{port}/v1/context/chat/completions"


async def ask(http: aiohttp.ClientSession, port: int, load: str) -> list[dict[str, object]]:
    """The chunks of a whole stream; its end marker is checked."""
    async with http.post(url(port), json={"model": load}) as response:
        assert response.content_type == "text/event-stream"
        *events, rest = (await response.read()).split(b"\n\n")
    assert (events[-1], rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


@pytest.mark.parametrize("load", [loads.whole(7), loads.paced(500, 7)])
async def test_stream_has_its_chunks(http: aiohttp.ClientSession, port: int, load: str) -> None:
    """A stream has so many chunks, the last but one with the finish reason, the last with the usage."""
    chunks = await ask(http, port, load)
    assert len(chunks) == 7
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:5]] == [loads.words(loads.TEXT)] * 5
    assert chunks[5]["choices"][0]["finish_reason"] == "stop"
    assert chunks[6]["usage"] == loads.USAGE
    assert chunks[6]["choices"] == []


async def test_paced_chunks_say_when_they_left(http: aiohttp.ClientSession, port: int) -> None:
    """Each chunk of a paced stream carries the time of its sending, by the clock of this machine."""
    before = time.monotonic_ns() // 1000
    chunks = await ask(http, port, loads.paced(500, 7))
    left = [chunk["created"] - loads.CREATED for chunk in chunks[:5]]
    assert before <= left[0] < left[1] < left[2] < left[3] < left[4] <= time.monotonic_ns() // 1000


async def test_gated_streams_wait_for_the_word(http: aiohttp.ClientSession, port: int) -> None:
    """A gated stream has its head at once, and its chunks when the server is told to go."""
    async with http.post(url(port), json={"model": loads.gated(500, 7)}) as response:
        sent = server_stats(port)["chunks"]
        assert server_stats(port, "/go")["chunks"] == sent
        assert (await response.read()).count(b"\n\n") == 8


async def test_plain_answer(http: aiohttp.ClientSession, port: int) -> None:
    """A plain answer has so many bytes of text."""
    async with http.post(url(port), json={"model": loads.plain(1000)}) as response:
        answer = await response.json()
    assert len(answer["choices"][0]["message"]["content"]) == 1000


async def test_late_answer(http: aiohttp.ClientSession, port: int) -> None:
    """A late answer has so many bytes of text."""
    async with http.post(url(port), json={"model": loads.late(30, 1000)}) as response:
        answer = await response.json()
    assert len(answer["choices"][0]["message"]["content"]) == 1000


async def test_held_streams_show_in_the_books(http: aiohttp.ClientSession, port: int) -> None:
    """A held stream counts as streaming until the client is gone."""
    before = server_stats(port)["streaming"]
    async with http.post(url(port), json={"model": loads.hold(2)}) as response:
        assert (await response.content.readany()).count(b"\n\n") >= 1
        assert server_stats(port)["streaming"] == before + 1
    async with asyncio.timeout(10):
        while server_stats(port)["streaming"] > before:  # noqa: ASYNC110  the server has no event for us
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("path", "model"), [("elsewhere", loads.plain()), ("context/chat/completions", "unknown")])
async def test_strangers_are_refused(http: aiohttp.ClientSession, port: int, path: str, model: str) -> None:
    """What names no load is answered with 404, so that no client measures errors."""
    async with http.post(f"http://127.0.0.1:{port}/v1/{path}", json={"model": model}) as response:
        assert response.status == 404


async def test_meter_counts_what_happened(http: aiohttp.ClientSession, port: int) -> None:
    """A meter tells CPU, wall time and the server's part of what happened within it."""
    await ask(http, port, loads.whole(5))
    with Meter(port) as meter:
        for _ in range(3):
            await ask(http, port, loads.whole(5))
    assert meter.cpu > 0
    assert meter.wall > 0
    assert (meter.server["requests"], meter.server["chunks"], meter.server["accepted"]) == (3, 15, 1)
    assert 0 <= meter.server["share"] <= 1.1
