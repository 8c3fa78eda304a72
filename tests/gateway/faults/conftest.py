"""A gateway whose waits take no time, and calls of it."""

import asyncio
from typing import Any

import aiohttp
import attrs
import pytest

from tests.gateway.conftest import Answer, Api, Clock, Start

__all__ = ["Clock", "Start"]


@attrs.define
class Waits:
    """A sleep that takes no time, and notes what was waited; endless while `endless`."""

    seconds: list[float] = attrs.field(factory=list)
    endless: bool = False
    waiting: asyncio.Event = attrs.field(factory=asyncio.Event)
    left: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def __call__(self, seconds: float) -> None:
        """Wait."""
        self.seconds.append(seconds)
        self.waiting.set()
        try:
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.left.set()


@attrs.frozen
class Seen:
    """What a client sees of an answer: the status, the whole events or the body so far, and whether there was an end.

    A stream that ends well by HTTP has an end.
    """

    status: int
    body: bytes
    ended: bool

    @property
    def chunks(self) -> int:
        """The number of events, `[DONE]` left out."""
        return self.body.count(b"\n\n") - self.body.count(b"data: [DONE]\n\n")

    @property
    def answer(self) -> Answer:
        """The answer, read as JSON or events."""
        return Answer(self.status, {}, self.body)


class Client:
    """Calls a gateway, and survives what comes.

    Attributes:
        gateway: the gateway.
        context: the id of a session context.
    """

    def __init__(self, api: Api, context: str) -> None:
        self.api = api
        self.gateway = api.gateway
        self.context = context

    async def send(self, path: str, body: Any) -> Seen:
        """Send a request; status 0 where no answer came."""
        status, received = 0, b""
        try:
            url = self.gateway.base_url + path
            async with asyncio.timeout(10), self.api.http.post(url, json=body, headers=self.api.key) as response:
                status = response.status
                async for part in response.content.iter_any():
                    received += part
        except aiohttp.ClientError:
            return Seen(status, received, ended=False)
        return Seen(status, received, ended=True)

    async def chat(self, text: str = "hello", **fields: Any) -> Seen:
        """Chat on the context."""
        return await self.send("/context/chat/completions", self.api.chat_body(self.context, text, **fields))

    async def stream(self, text: str = "hello") -> Seen:
        """Chat, streamed, with the usage."""
        return await self.chat(text, stream=True, stream_options={"include_usage": True})

    async def create(self) -> Seen:
        """Create a context."""
        messages = [{"role": "system", "content": "Be kind."}]
        return await self.send("/context/create", {"model": "Doubao-1.5-pro-32k", "messages": messages})

    @property
    def turns(self) -> int:
        """The number of turns that the context holds."""
        messages = self.gateway.messages(self.context)
        assert messages is not None
        return (len(messages) - 1) // 2


@pytest.fixture
def waits() -> Waits:
    """The gateway's waits."""
    return Waits()


@pytest.fixture
async def client(start: Start, waits: Waits) -> Client:
    """A client, and a gateway with a context."""
    api = await start(_sleep=waits)
    return Client(api, (await api.create())["id"])
