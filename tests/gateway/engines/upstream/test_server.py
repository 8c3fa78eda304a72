"""One server: its kind, its health, its models."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ctxcache.config import Secret, Timeouts
from ctxcache.errors import APIConnectionError
from ctxcache.gateway import UpstreamEngine
from ctxcache.gateway.engines.upstream.server import Server

MARKS = {
    "llama.cpp": {"/props": {"default_generation_settings": {}, "total_slots": 4}},
    "sglang": {"/get_server_info": {"model_path": "Qwen", "version": "0.5"}, "/version": {"version": "x"}},
    "ollama": {"/api/version": {"version": "0.12"}, "/version": {"version": "x"}},
    "vllm": {"/version": {"version": "0.11"}},
    "openai": {"/props": {"other": 1}, "/version": ["version"]},
}


class Fake:
    """A web server that answers GETs with a status or with JSON, and counts them."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.keys: set[str] = set()
        self.came = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """Answer."""
        self.asked.append(request.path)
        self.keys.add(request.headers.get("Authorization", ""))
        self.came.set()
        if self.hold is not None:
            await self.hold.wait()
        found = self.answers.get(request.path, 404)
        return web.Response(status=found) if isinstance(found, int) else web.json_response(found)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Start fakes; return each with a `Server` for it."""
    running: list[TestServer] = []

    async def start(answers: dict[str, Any], kind: str | None = None, key: str | None = None) -> tuple[Fake, Server]:
        fake = Fake(answers)
        app = web.Application()
        app.router.add_get("/{path:.*}", fake.handle)
        running.append(TestServer(app))
        await running[-1].start_server()
        secret = None if key is None else Secret(key)
        url = f"http://127.0.0.1:{running[-1].port}/v1"
        return fake, Server(url, secret, kind=kind, timeouts=Timeouts(), probing=5, clock=lambda: 0.0)

    yield start
    for server in running:
        await server.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """The connections for probes."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("kind", MARKS)
async def test_a_kind_is_found_out_once(serve: Any, http: Any, kind: str) -> None:
    """Each kind is known by a path and a name that no other has, and is asked for once, with the key."""
    fake, server = await serve(MARKS[kind], key="sk-upstream")
    assert [await server.kind(http), await server.kind(http)] == [kind, kind]
    assert len(fake.asked) == len(set(fake.asked))
    assert fake.keys == {"Bearer sk-upstream"}


async def test_a_server_that_hangs_is_asked_by_one(serve: Any, http: Any) -> None:
    """Concurrent calls wait for one answer; a caller that leaves takes nobody along, and closing ends the wait."""
    fake, server = await serve(MARKS["llama.cpp"])
    fake.hold = asyncio.Event()
    callers = [asyncio.create_task(server.kind(http)) for _ in range(5)]
    await asyncio.wait_for(fake.came.wait(), 5)
    callers[0].cancel()
    fake.hold.set()
    assert await asyncio.gather(*callers[1:]) == ["llama.cpp"] * 4
    assert fake.asked == ["/props"]
    fake, server = await serve(MARKS["llama.cpp"])
    fake.hold = asyncio.Event()
    waiting = asyncio.create_task(server.kind(http))
    await asyncio.wait_for(fake.came.wait(), 5)
    await server.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    fake.hold.set()


async def test_a_kind_that_is_given_is_believed(serve: Any, http: Any) -> None:
    """Nothing is asked then; without a key none is sent."""
    fake, server = await serve(MARKS["vllm"], kind="sglang")
    assert await server.kind(http) == "sglang"
    assert fake.asked == []
    assert await server.probe(http) is None
    assert fake.keys == {""}


async def test_a_server_that_is_down_has_no_kind_yet(http: Any) -> None:
    """A server that cannot be reached counts as `openai` for now, and is asked again later."""
    server = Server("http://127.0.0.1:1/v1", None, kind=None, timeouts=Timeouts(), probing=5, clock=lambda: 0.0)
    assert await server.kind(http) == "openai"
    assert "unknown kind" in repr(server)


async def test_a_probe_of_a_server_that_is_down(http: Any) -> None:
    """The problem is told in a line."""
    server = Server("http://127.0.0.1:1/v1", None, kind="vllm", timeouts=Timeouts(), probing=5, clock=lambda: 0.0)
    assert "the probe failed: Client" in str(await server.probe(http))


@pytest.mark.parametrize(
    ("kind", "path"),
    [("vllm", "/health"), ("llama.cpp", "/health"), ("ollama", "/api/version"), ("openai", "/v1/models")],
)
async def test_probes(serve: Any, http: Any, kind: str, path: str) -> None:
    """Each kind has a path that tells its health; any answer but a 5xx is good news."""
    fake, server = await serve({path: {}}, kind=kind)
    assert await server.probe(http) is None
    fake.answers[path] = 401
    assert await server.probe(http) is None
    fake.answers[path] = 503
    problem = await server.probe(http)
    assert "status 503" in str(problem)
    assert set(fake.asked) == {path}


async def test_models_and_windows(serve: Any) -> None:
    """The list of models tells ids, and windows where vLLM and SGLang tell them."""
    listed = {
        "data": [{"id": "a", "max_model_len": 4096}, {"id": "b"}, {"id": 5}, "c", {"id": "d", "max_model_len": "x"}]
    }
    _, server = await serve({"/v1/models": listed})
    engine = UpstreamEngine(["http://127.0.0.1:1/v1", server.url])
    assert await engine.models() == {"a": 4096, "b": None, "d": None}
    await engine.aclose()


@pytest.mark.parametrize("answer", [500, {"data": 5}, ["x"], {"data": ["x" * 5_000_000]}], ids=range(4))
async def test_no_models(serve: Any, answer: Any) -> None:
    """A server without a list is named, with the reason."""
    _, server = await serve({"/v1/models": answer})
    engine = UpstreamEngine(server.url)
    with pytest.raises(APIConnectionError, match=server.url):
        await engine.models()
    await engine.aclose()


async def test_no_server_to_list_models() -> None:
    """A server that cannot be reached is named, with the reason."""
    engine = UpstreamEngine("http://127.0.0.1:1/v1")
    with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1:1/v1: Client"):
        await engine.models()
    await engine.aclose()
