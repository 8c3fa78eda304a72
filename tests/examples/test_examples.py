"""The examples, run against the local gateway."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from ctxcache.gateway import Engine, Gateway, Prompt, ScriptedEngine
from ctxcache.sse import ServerSentEvent, SSEDecoder

FOLDER = Path(__file__).parent
SCRIPTED = "This is a scripted answer, not a language model."


class Endless:
    """An engine that writes until somebody stops it.

    Attributes:
        stopped: is set when one answer was stopped.
    """

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write one word a millisecond."""
        try:
            while True:
                yield "word "
                await asyncio.sleep(0.001)
        finally:
            self.stopped.set()


@pytest.fixture
def engine() -> Engine:
    """The engine of the gateway; a test may have another one by its parameters."""
    return ScriptedEngine()


@pytest.fixture
async def gateway(engine: Engine) -> AsyncIterator[Gateway]:
    """A gateway for one example."""
    async with Gateway(engine=engine) as gateway:
        yield gateway


@pytest.fixture
def environment(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables by which an example finds the gateway."""
    monkeypatch.setenv("CTXCACHE_API_KEY", gateway.api_key)
    monkeypatch.setenv("CTXCACHE_BASE_URL", gateway.base_url)


async def run(name: str, folder: Path, *arguments: str) -> str:
    """Run one example as a program of its own in `folder`; return what it prints."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", FOLDER / name, *arguments),
        cwd=folder,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, problems = await asyncio.wait_for(program.communicate(), 60)
    assert (program.returncode, problems.decode()) == (0, "")
    return output.decode()


@pytest.mark.usefixtures("environment")
async def test_first_chat(tmp_path: Path) -> None:
    """A first chat prints the answer and how it ended."""
    output = await run("first_chat.py", tmp_path)
    assert output.startswith(SCRIPTED)
    assert output.endswith("\nfinish reason: stop\n")


@pytest.mark.usefixtures("environment")
async def test_prefix_with_a_store(tmp_path: Path) -> None:
    """A second run answers from the first one's context."""
    first = await run("prefix_with_a_store.py", tmp_path)
    second = await run("prefix_with_a_store.py", tmp_path)
    created, *answers = first.splitlines()
    assert created.startswith("created ctx-")
    assert second.splitlines() == answers
    assert [answer.split(" → ")[0] for answer in answers] == [
        "How long is the warranty?",
        "And abroad?",
        "Who repairs it?",
    ]
    assert all(SCRIPTED in answer for answer in answers)


@pytest.mark.usefixtures("environment")
async def test_saved_conversation(tmp_path: Path) -> None:
    """A second run knows the turn of the first."""
    assert "holds 1 message " in await run("saved_conversation.py", tmp_path, "My name is Ada")
    assert "holds 3 messages " in await run("saved_conversation.py", tmp_path, "What is my name?")


async def test_own_engine(tmp_path: Path) -> None:
    """An engine of one's own writes the answers."""
    assert (await run("own_engine.py", tmp_path)).splitlines() == [
        "How long is the warranty? The warranty lasts two years. ",
        "Where are repairs? Repairs are done in Delft. ",
        "What is the price? I do not know. ",
    ]


async def read(response: aiohttp.ClientResponse) -> tuple[list[str], ServerSentEvent]:
    """Read a relayed answer: its texts, and the last event."""
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last = SSEDecoder().feed(await response.read())
    choices = [choice for event in chunks for choice in json.loads(event.data)["choices"]]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")], last


@pytest.fixture
async def aiohttp_relay(environment: None) -> AsyncIterator[str]:
    """The aiohttp service, running."""
    from .relay_aiohttp import make_app

    async with TestServer(make_app()) as server:
        yield str(server.make_url("/ask"))


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """An ASGI service, running."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn tells of it in no other way
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/ask"
    server.should_exit = True
    await serving


@pytest.fixture
async def starlette_relay(environment: None) -> AsyncIterator[str]:
    """The Starlette service, running."""
    pytest.importorskip("starlette")
    from .relay_starlette import app

    async with served(app) as url:
        yield url


@pytest.fixture
async def fastapi_relay(environment: None) -> AsyncIterator[str]:
    """The FastAPI service, running."""
    pytest.importorskip("fastapi")
    from .relay_fastapi import app

    async with served(app) as url:
        yield url


@pytest.fixture(params=["aiohttp_relay", "starlette_relay", "fastapi_relay"])
def relay(request: pytest.FixtureRequest) -> str:
    """Each of the services."""
    return str(request.getfixturevalue(request.param))


async def test_relays(relay: str) -> None:
    """A relay sends the answer piece by piece, then `[DONE]`."""
    async with aiohttp.ClientSession() as browser, browser.post(relay, json={"question": "hello"}) as response:
        texts, last = await read(response)
    assert len(texts) > 5
    assert "".join(texts).startswith(SCRIPTED)
    assert last.data == "[DONE]"


async def test_a_whole_reply(fastapi_relay: str) -> None:
    """A FastAPI route returns a reply as plain data."""
    url = fastapi_relay.replace("/ask", "/answer")
    async with aiohttp.ClientSession() as browser, browser.post(url, json={"question": "hello"}) as response:
        reply = await response.json()
    assert reply["choices"][0]["message"]["content"].startswith(SCRIPTED)
    assert reply["object"] == "chat.completion"


class TestLeaving:
    """A reader, or the service, who leaves in the middle."""

    @pytest.fixture
    def engine(self) -> Engine:
        """An engine whose answers have no end."""
        return Endless()

    async def test_a_reader_who_leaves_ends_the_answer(self, relay: str, engine: Endless) -> None:
        """A relay closes the stream, and so the engine's work, when the reader leaves."""
        async with aiohttp.ClientSession() as browser:
            async with browser.post(relay, json={"question": "hello"}) as response:
                assert b"word" in await response.content.readany()
            await asyncio.wait_for(engine.stopped.wait(), 10)

    async def test_a_failure_in_the_middle(self, relay: str, gateway: Gateway) -> None:
        """A relay, whose status has left by then, tells of a failure by an event."""
        async with aiohttp.ClientSession() as browser, browser.post(relay, json={"question": "hello"}) as response:
            assert b"word" in await response.content.readany()
            await gateway.aclose()
            _, last = await read(response)
        assert last.event == "error"
        assert json.loads(last.data)["error"]["type"] == "StreamInterruptedError"


async def test_a_failure_before_the_response(relay: str, gateway: Gateway) -> None:
    """A relay opens the answer first, and turns a failure into a status."""
    await gateway.aclose()
    async with aiohttp.ClientSession() as browser, browser.post(relay, json={"question": "hello"}) as response:
        assert response.status == 502
        assert "connect" in (await response.text()).lower()
