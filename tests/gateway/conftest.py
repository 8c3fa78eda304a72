"""A gateway on a real socket, a plain aiohttp client, and an engine that writes what a test dictates."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest

from ctxcache.gateway import Gateway, Prompt

from .raw import KEY

MODEL = "Doubao-1.5-pro-32k"


class Clock:
    """A wall clock that only a test moves, at first 2024-12-11 10:43:33 UTC, as in the API reference."""

    def __init__(self) -> None:
        self.now = 1733913813.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of all gateways of a test."""
    return Clock()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Let everything else run until a condition holds; fail if that takes seconds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0)

    return wait


class DictatedEngine:
    """An engine that writes a test's pieces: an exception is raised, a function called, None ends the reply."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[Any] = asyncio.Queue()
        self.prompts: list[Prompt] = []
        self.started = asyncio.Event()
        self.closed = asyncio.Event()

    def say(self, *pieces: Any) -> None:
        """Add pieces."""
        for piece in pieces:
            self.pieces.put_nowait(piece)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write the pieces."""
        self.prompts.append(prompt)
        self.started.set()
        try:
            while (piece := await self.pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                if callable(piece):
                    piece()
                else:
                    yield piece
        finally:
            self.closed.set()


@pytest.fixture
def dictated() -> DictatedEngine:
    """An engine for `start(engine=dictated)`."""
    return DictatedEngine()


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
    def error(self) -> Any:
        """The error inside the envelope."""
        return self.json["error"]

    @property
    def data(self) -> list[str]:
        """The data of each event of a stream, which must be one `data:` line and one empty line."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == ""
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        return [event[6:] for event in events]

    @property
    def chunks(self) -> list[Any]:
        """The chunks of a stream, which must end with `[DONE]`."""
        *chunks, done = self.data
        assert done == "[DONE]"
        return [json.loads(chunk) for chunk in chunks]


class Api:
    """Both endpoints, called by a plain aiohttp client."""

    def __init__(self, http: aiohttp.ClientSession, gateway: Gateway, closers: list[Any], key: str) -> None:
        self.http = http
        self.closers = closers
        self.gateway = gateway
        self.key = {"Authorization": f"Bearer {key}"}

    def with_key(self, key: str) -> "Api":
        """Return the same endpoints, called with another key."""
        return Api(self.http, self.gateway, self.closers, key)

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        """Send anything."""
        async with self.http.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def post(self, path: str, body: Any, headers: Any = ()) -> Answer:
        """Send JSON, with the key."""
        url = self.gateway.base_url + path
        return await self.request("POST", url, json=body, headers={**self.key, **dict(headers)})

    async def create(self, **fields: Any) -> Any:
        """Create a context; return the JSON of the answer."""
        body = {"model": MODEL, "messages": [{"role": "system", "content": "Be kind."}], **fields}
        answer = await self.post("/context/create", body)
        assert answer.status == 200, answer.body
        return answer.json

    def chat_body(self, context_id: str, text: str, **fields: Any) -> dict[str, Any]:
        """Return the JSON of a chat."""
        return {"context_id": context_id, "model": MODEL, "messages": [{"role": "user", "content": text}], **fields}

    async def chat(self, context_id: str, text: str = "hello", **fields: Any) -> Answer:
        """Chat, and read the answer to the end."""
        return await self.post("/context/chat/completions", self.chat_body(context_id, text, **fields))

    def open(self, context_id: str, text: str = "hello", **fields: Any) -> Any:
        """Send a chat, and leave reading to the test."""
        body = self.chat_body(context_id, text, **fields)
        return self.http.post(self.gateway.base_url + "/context/chat/completions", json=body, headers=self.key)

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection until the end of the test, send bytes, read nothing."""
        sock = socket.create_connection(("127.0.0.1", self.gateway.port))  # at once: the kernel accepts
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        self.closers.append(partial(_close, writer))
        writer.write(data)
        return reader, writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


class Start:
    """Starts gateways, each with a client: `await start(engine=…)`."""

    def __init__(self, stack: list[Any], clock: Clock) -> None:
        self.stack = stack
        self.clock = clock

    async def __call__(self, **settings: Any) -> Api:
        """Start a gateway and a client until the end of the test."""
        gateway = await Gateway(clock=self.clock, **settings).__aenter__()
        http = aiohttp.ClientSession()
        self.stack += [gateway.aclose, http.close]
        return Api(http, gateway, self.stack, "none" if settings.get("keys") else gateway.api_key)


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Start]:
    """Start gateways with the settings a test wants."""
    stack: list[Any] = []
    yield Start(stack, clock)
    async with asyncio.timeout(5):
        for close in reversed(stack):
            await close()


@pytest.fixture
async def api(start: Start) -> Api:
    """A gateway with default settings, and a client."""
    return await start()


class Raw:
    """Sends bytes to gateways, each time on a new connection, and reads one response."""

    def __init__(self, start: Start) -> None:
        self.start = start

    async def __call__(self, data: bytes, later: bytes = b"", **settings: Any) -> tuple[int, Any]:
        """Return status and JSON of the response; `later` is sent a while after `data`."""
        api = await self.start(api_key=KEY, **settings)
        reader, writer = await api.connect(data)
        if later:
            for _ in range(100):
                await asyncio.sleep(0)
            writer.write(later)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["Content-Length"]))
        assert headers["X-Request-Id"]
        assert headers["X-Tt-Logid"]
        assert KEY not in head.decode() + body.decode()
        return int(head.split()[1]), json.loads(body)


@pytest.fixture
def raw(start: Start, caplog: pytest.LogCaptureFixture) -> Iterator[Raw]:
    """Send bytes; neither responses nor the log may show the key, and no failure of ours may be logged."""
    caplog.set_level(logging.DEBUG)
    yield Raw(start)
    assert KEY not in caplog.text
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
