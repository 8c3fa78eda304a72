"""Clients that leave, clients that do not read, and a gateway that is closed under them all."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ctxcache.gateway import MODELS
from ctxcache.gateway import server as server_module


class Fast:
    """An engine that writes much, never waits, and counts what it wrote."""

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


async def connect(api: Any, context_id: str, text: str = "hello", stream: bool = True) -> asyncio.StreamWriter:
    """Ask for an answer and read none of it."""
    body = json.dumps(api.chat_body(context_id, text, stream=stream)).encode()
    _, writer = await api.connect(
        b"POST /v1/context/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (api.gateway.api_key.encode(), len(body), body)
    )
    return writer


def server_of(api: Any) -> Any:
    """The server inside, which knows its connections."""
    return api.gateway._running[1]


def waits(api: Any) -> bool:
    """Whether the gateway has more to send than a connection takes."""
    return any(transport.get_write_buffer_size() for transport in server_of(api).transports)


async def test_leaving_mid_stream_frees_the_context(start: Any, told: Any) -> None:
    """While the engine is between two chunks: the engine is closed, nothing is stored, the next call is accepted."""
    api = await start(engine=told)
    created = await api.create()
    told.say("one")
    async with asyncio.timeout(5):
        async with api.open(created["id"], stream=True) as response:
            await response.content.readany()
            response.close()
        await told.closed.wait()
    assert len(api.gateway.messages(created["id"])) == 1
    told.say("again", None)
    assert (await api.chat(created["id"], stream=True)).data[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_piece_frees_the_context(start: Any, told: Any, stream: bool) -> None:
    """While an answer is thought up, plain or streamed."""
    api = await start(engine=told)
    created = await api.create()
    async with asyncio.timeout(5):
        call = asyncio.create_task(api.chat(created["id"], stream=stream))
        await told.started.wait()
        call.cancel()
        await told.closed.wait()
    assert len(api.gateway.messages(created["id"])) == 1
    told.say("again", None)
    assert (await api.chat(created["id"])).status == 200


class Stubborn:
    """An engine that takes its time when it is closed."""

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
    """An engine that takes its time when it is closed does not keep the context."""
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


async def test_an_engine_that_does_not_stop_does_not_keep_the_gateway(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits for engines a little, and then goes."""
    monkeypatch.setattr(server_module, "_LEAVE_SECONDS", 0.05)
    engine = Stubborn()
    api = await start(engine=engine)
    async with asyncio.timeout(5), api.open((await api.create())["id"], stream=True) as response:
        await response.content.readany()
        await api.gateway.aclose()
        assert engine.cleaning.is_set()
    engine.let_go.set()


async def test_leaving_while_nothing_can_be_written_frees_the_context(start: Any, until: Any) -> None:
    """A client that read nothing and then left."""
    engine = Fast()
    api = await start(engine=engine, models=BIG)
    created = await api.create()
    writer = await connect(api, created["id"])
    await until(lambda: waits(api))
    writer.transport.abort()
    async with asyncio.timeout(5):
        await engine.closed.wait()
    engine.pieces = 1
    assert (await api.chat(created["id"])).status == 200


async def test_a_client_that_does_not_read_holds_the_engine_up(start: Any, until: Any) -> None:
    """The engine waits for the client: what is held in between is bounded."""
    engine = Fast()
    api = await start(engine=engine, models=BIG)
    await connect(api, (await api.create())["id"])
    await until(lambda: waits(api))
    for _ in range(100):  # what can go on, goes on
        await asyncio.sleep(0)
    count = engine.count
    for _ in range(1000):
        await asyncio.sleep(0)
    assert engine.count == count < engine.pieces / 2


async def test_a_connection_that_broke_unnoticed_is_no_error(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where the break is met in writing, before the event loop tells of it, nothing is stored and nobody is alarmed."""

    class Cutting:
        api: Any = None

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            for transport in server_of(self.api).transports:
                transport.abort()
            yield "into the void"

    engine = Cutting()
    engine.api = api = await start(engine=engine)
    created = await api.create()
    with pytest.raises(aiohttp.ClientError):
        await api.chat(created["id"], stream=True)
    assert len(api.gateway.messages(created["id"])) == 1
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [("write", ["two"]), ("write_eof", ["two", None]), ("write_eof", ["two", RuntimeError()])],
)
async def test_a_write_that_fails_is_a_client_that_left(
    start: Any, told: Any, monkeypatch: pytest.MonkeyPatch, broken: str, said: list[Any]
) -> None:
    """In the middle, at the end or in telling of an error: the next call finds the session free."""
    api = await start(engine=told)
    created = await api.create()
    told.say("one")
    async with asyncio.timeout(5), api.open(created["id"], stream=True) as response:
        await response.content.readany()
        real = getattr(web.StreamResponse, broken)

        async def fail_once(self: Any, data: bytes = b"") -> None:
            monkeypatch.setattr(web.StreamResponse, broken, real)
            raise ConnectionResetError

        monkeypatch.setattr(web.StreamResponse, broken, fail_once)
        told.say(*said)
        assert b"[DONE]" not in await response.content.read()
    told.say(None)
    assert (await api.chat(created["id"])).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_under_an_answer_is_prompt(start: Any, told: Any, stream: bool) -> None:
    """An answer under way is cut, its engine closed, and the client hears of it at once."""
    api = await start(engine=told)
    created = await api.create()
    call = asyncio.create_task(api.chat(created["id"], stream=stream))
    async with asyncio.timeout(2):
        await told.started.wait()
        await api.gateway.aclose()
        assert told.closed.is_set()
        with pytest.raises(aiohttp.ClientError):
            await call


async def test_closing_under_many_streams_leaves_nothing(start: Any, until: Any) -> None:
    """Streams being sent, clients that do not read, answers thought up, idle connections, half requests: all gone."""

    class Mixed(Fast):
        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            if prompt.question[0].content == "fast":
                async for piece in super().generate(prompt):
                    yield piece
            if prompt.question[0].content == "slow":
                yield "piece"
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    api = await start(engine=Mixed(), models=BIG)
    created = await api.create(mode="common_prefix")
    responses = [await api.open(created["id"], "slow", stream=True) for _ in range(50)]
    for _ in range(5):
        await connect(api, created["id"], "fast")
        await connect(api, created["id"], "think", stream=False)
    await until(lambda: waits(api))
    for sent in (b"", b"POST /v1/context/create HTTP/1.1\r\nHost: x\r\nContent-Le") * 5:
        await api.connect(sent)
    async with asyncio.timeout(2):
        await api.gateway.aclose()
    for response in responses:
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
        response.close()
    await until(lambda: not asyncio.all_tasks() - before)


async def test_closing_while_clients_connect_loses_none(start: Any) -> None:
    """A connection that was accepted in the last moment is closed as well, not lost by the event loop."""
    api = await start()
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    closing = asyncio.create_task(api.gateway.aclose())
    with ExitStack() as stack:
        while not closing.done():
            with suppress(ConnectionError):
                stack.enter_context(socket.create_connection(("127.0.0.1", api.gateway.port)))
            await asyncio.sleep(0)
        await closing
        await asyncio.sleep(0)
    assert complaints == []


async def test_closing_does_not_wait_for_a_closed_connection_to_be_read(start: Any, until: Any) -> None:
    """A connection that the gateway has closed, and whose client does not read what is left, is cut too."""
    api = await start(engine=Fast(), models=BIG)
    await connect(api, (await api.create())["id"])
    await until(lambda: waits(api))
    server = server_of(api)
    (connection,) = [connection for connection in server.connections if connection._request_in_progress]
    connection.force_close()  # what aiohttp does at the end of a keep-alive
    assert connection.transport is None
    async with asyncio.timeout(2):
        await api.gateway.aclose()
    await until(lambda: not server.transports)
