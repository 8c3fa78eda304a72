"""Clients that leave, clients that do not read, and a gateway that closes during calls."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ctxcache.gateway import MODELS

from .raw import post


class Fast:
    """An engine that writes many pieces without a wait, and counts."""

    def __init__(self, pieces: int = 1_000_000) -> None:
        self.pieces = pieces
        self.count = 0
        self.closed = asyncio.Event()

    async def generate(self, prompt: Any) -> AsyncIterator[str]:
        """Write."""
        try:
            for _ in range(self.pieces):
                self.count += 1
                yield "word " * 2000
        finally:
            self.closed.set()


BIG = {MODELS[0]: 1_000_000_000}


async def held_up(engine: Fast) -> None:
    """Wait until back-pressure stops the engine."""
    async with asyncio.timeout(5):
        count = -1
        while not engine.count or engine.count != count:
            count = engine.count
            for _ in range(100):
                await asyncio.sleep(0)


async def connect(api: Any, context_id: str, text: str = "hello", stream: bool = True) -> asyncio.StreamWriter:
    """Send a chat without reading the answer."""
    body = json.dumps(api.chat_body(context_id, text, stream=stream)).encode()
    _, writer = await api.connect(post(body, path=b"/v1/context/chat/completions", key=api.gateway.api_key))
    return writer


async def test_leaving_mid_stream_frees_the_context(start: Any, dictated: Any) -> None:
    """A client that leaves between two chunks closes the engine; nothing is stored, the next call is accepted."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("one")
    async with asyncio.timeout(5):
        async with api.open(created["id"], stream=True) as response:
            await response.content.readany()
            response.close()
        await dictated.closed.wait()
    assert len(api.gateway.messages(created["id"])) == 1
    dictated.say("again", None)
    assert (await api.chat(created["id"], stream=True)).data[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_piece_frees_the_context(start: Any, dictated: Any, stream: bool) -> None:
    """A client that leaves before the first piece, plain or streamed, frees the context."""
    api = await start(engine=dictated)
    created = await api.create()
    async with asyncio.timeout(5):
        call = asyncio.create_task(api.chat(created["id"], stream=stream))
        await dictated.started.wait()
        call.cancel()
        await dictated.closed.wait()
    assert len(api.gateway.messages(created["id"])) == 1
    dictated.say("again", None)
    assert (await api.chat(created["id"])).status == 200


class Stubborn:
    """An engine that is slow to close."""

    def __init__(self) -> None:
        self.cleaning, self.let_go = asyncio.Event(), asyncio.Event()

    async def generate(self, prompt: Any) -> AsyncIterator[str]:
        """Write; from the second time on without ado."""
        if self.cleaning.is_set():
            yield "next"
            return
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            self.cleaning.set()
            await self.let_go.wait()


async def test_the_context_is_free_before_the_engine_is_done_cleaning_up(start: Any) -> None:
    """An engine that is slow to close does not keep the context."""
    engine = Stubborn()
    api = await start(engine=engine)
    created = await api.create()
    async with asyncio.timeout(5):
        async with api.open(created["id"], stream=True) as response:
            await response.content.readany()
            response.close()
        await engine.cleaning.wait()
        assert (await api.chat(created["id"])).status == 200
    engine.let_go.set()


async def test_an_engine_that_does_not_stop_does_not_keep_the_gateway(start: Any) -> None:
    """A closing gateway waits only a moment for engines."""
    engine = Stubborn()
    api = await start(engine=engine, _leave_seconds=0.01)
    async with asyncio.timeout(5), api.open((await api.create())["id"], stream=True) as response:
        await response.content.readany()
        await api.gateway.aclose()
        assert engine.cleaning.is_set()
    engine.let_go.set()


async def test_leaving_while_nothing_can_be_written_frees_the_context(start: Any, until: Any) -> None:
    """A client that leaves without having read frees the context."""
    engine = Fast()
    api = await start(engine=engine, models=BIG)
    created = await api.create()
    writer = await connect(api, created["id"])
    await held_up(engine)
    writer.transport.abort()
    async with asyncio.timeout(5):
        await engine.closed.wait()
    engine.pieces = 1
    assert (await api.chat(created["id"])).status == 200


async def test_a_client_that_does_not_read_holds_the_engine_up(start: Any, until: Any) -> None:
    """The engine waits for the client, and the memory in between is bounded."""
    engine = Fast()
    api = await start(engine=engine, models=BIG)
    await connect(api, (await api.create())["id"])
    await held_up(engine)
    for _ in range(100):  # what can go on, goes on
        await asyncio.sleep(0)
    count = engine.count
    for _ in range(1000):
        await asyncio.sleep(0)
    assert engine.count == count < engine.pieces / 2


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_under_an_answer_is_prompt(start: Any, dictated: Any, stream: bool) -> None:
    """Closing cuts an answer under way and closes the engine, and the client hears of that at once."""
    api = await start(engine=dictated)
    created = await api.create()
    call = asyncio.create_task(api.chat(created["id"], stream=stream))
    async with asyncio.timeout(2):
        await dictated.started.wait()
        await api.gateway.aclose()
        assert dictated.closed.is_set()
        with pytest.raises(aiohttp.ClientError):
            await call


async def test_closing_under_many_streams_leaves_nothing(start: Any, until: Any) -> None:
    """Closing ends streams, unread streams, unfinished answers, idle connections and half requests alike."""

    class Mixed(Fast):
        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            if prompt.question[0].content == "fast":
                async for piece in super().generate(prompt):
                    yield piece
            if prompt.question[0].content == "slow":
                yield "piece"
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    engine = Mixed()
    api = await start(engine=engine, models=BIG)
    created = await api.create(mode="common_prefix")
    responses = [await api.open(created["id"], "slow", stream=True) for _ in range(50)]
    for _ in range(5):
        await connect(api, created["id"], "fast")
        await connect(api, created["id"], "think", stream=False)
    await held_up(engine)
    for sent in (b"", b"POST /v1/context/create HTTP/1.1\r\nHost: localhost\r\nContent-Le") * 5:
        await api.connect(sent)
    async with asyncio.timeout(2):
        await api.gateway.aclose()
    for response in responses:
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
        response.close()
    await until(lambda: not asyncio.all_tasks() - before)
