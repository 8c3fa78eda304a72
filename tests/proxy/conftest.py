"""A proxy between a plain client and an upstream: a real gateway, or a server without contexts."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from ctxcache.gateway import Gateway, NewContext, Prompt
from ctxcache.proxy import Proxy

MODEL = "Doubao-1.5-pro-32k"
UPSTREAM_KEY = "sk-upstream-5f2e9c7a41d8b306"
MARK = {"cache_control": {"type": "ephemeral"}}
LONG = "The quick brown fox jumps over the lazy dog. " * 50


def marked(*questions: str, text: str = LONG, **fields: Any) -> dict[str, Any]:
    """The body of a chat whose system message is marked."""
    asked = [{"role": "user", "content": question} for question in questions or ("Hello?",)]
    return {"model": MODEL, "messages": [{"role": "system", "content": text, **MARK}, *asked], **fields}


class Clock:
    """A wall clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1733913813.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class NotedEngine:
    """Answers `echo: QUESTION`, and notes contexts and prompts; a question `endless` has no end."""

    def __init__(self) -> None:
        self.contexts: list[NewContext] = []
        self.prompts: list[Prompt] = []
        self.closed = asyncio.Event()
        self.generating = asyncio.Event()
        self.preparing = asyncio.Event()
        self.may_prepare = asyncio.Event()
        self.may_prepare.set()

    async def prepare(self, context: NewContext) -> None:
        """Note a new context."""
        self.contexts.append(context)
        self.preparing.set()
        await self.may_prepare.wait()

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply, word by word."""
        self.prompts.append(prompt)
        self.generating.set()
        try:
            for word in f"echo: {prompt.question[-1].text}".split(" "):
                yield f"{word} "
            if prompt.question[-1].text == "endless":
                await asyncio.Event().wait()
        finally:
            self.closed.set()


@attrs.frozen
class Answer:
    """One HTTP response, read to the end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def way(self) -> str:
        """Which way the chat went, without the context's id."""
        return str(self.headers.get("X-Ctxcache", "")).partition(";")[0]

    @property
    def text(self) -> str:
        """The reply."""
        return str(self.json["choices"][0]["message"]["content"]).strip()

    @property
    def events(self) -> list[Any]:
        """The events of a stream: the JSON of the data, or the end marker."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == ""
        data = [event.removeprefix("data: ") for event in events]
        return [text if text == "[DONE]" else json.loads(text) for text in data]


class Front:
    """A proxy, and a client of OpenAI's API before it."""

    def __init__(self, proxy: Proxy, http: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self.http = http
        self.key = {"Authorization": f"Bearer {proxy.api_key}"}

    def open(self, body: dict[str, Any]) -> Any:
        """Send a chat, and leave reading to the test."""
        return self.http.post(f"{self.proxy.base_url}/chat/completions", json=body, headers=self.key)

    async def chat(self, body: dict[str, Any] | bytes, path: str = "/chat/completions") -> Answer:
        """Chat, and read the answer to the end."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {**self.key, "Content-Type": "application/json"}
        async with self.http.post(self.proxy.base_url + path, data=io.BytesIO(data), headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Answer:
        """Send a GET with the key."""
        async with self.http.get(self.proxy.base_url + path, headers=self.key) as response:
            return Answer(response.status, response.headers, await response.read())


class Upstream:
    """A server of OpenAI's API without contexts, which answers as a test dictates and notes the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.keys: list[str] = []
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.url = ""

    def say(self, path: str, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Answer a path with a body."""

        async def answer(_: web.Request) -> web.StreamResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=body, status=status, headers={**named, "Content-Type": kind})

        self.answers[f"/v1{path}"] = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        self.requests.append((request.path.removeprefix("/v1"), await request.read()))
        self.keys.append(request.headers.get("Authorization", ""))
        if request.path not in self.answers:
            return web.json_response({"error": {"message": "no such path", "code": "NoPath"}}, status=404)
        return await self.answers[request.path](request)

    async def start(self) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner


@pytest.fixture
def clock() -> Clock:
    """The clock of the gateway and of the proxies."""
    return Clock()


@pytest.fixture
def engine() -> NotedEngine:
    """Writes the gateway's answers."""
    return NotedEngine()


@pytest.fixture
async def gateway(clock: Clock, engine: NotedEngine) -> AsyncIterator[Gateway]:
    """A service with both endpoints of the Context API, and without plain chat."""
    async with Gateway(clock=clock, engine=engine, api_key=UPSTREAM_KEY) as gateway:
        yield gateway


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A server without contexts."""
    server = Upstream()
    runner = await server.start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def before(clock: Clock) -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    """Start a proxy before an upstream, with a client."""
    stack: list[Any] = []

    async def start(url: str, **settings: Any) -> Front:
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        proxy = await Proxy(UPSTREAM_KEY, url, clock=clock, **settings).__aenter__()
        stack.extend([proxy.aclose, http.close])
        return Front(proxy, http)

    yield start
    async with asyncio.timeout(10):
        for close in reversed(stack):
            await close()


@pytest.fixture
async def front(gateway: Gateway, before: Callable[..., Awaitable[Front]]) -> Front:
    """A proxy before the gateway."""
    return await before(gateway.base_url)
