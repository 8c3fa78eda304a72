"""Other clients, judged by the record of their calls: openai's SDK and the vendor's, as they come."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import AsyncSession, Retry
from ctxcache.errors import OutcomeUnknownError
from ctxcache.testing import RecordingGateway

MODEL = "Doubao-1.5-pro-32k"

pytestmark = pytest.mark.filterwarnings("default")  # of the SDKs, and of what they are built on


class Openai:
    """openai's client, at the two endpoints."""

    def __init__(self, gateway: RecordingGateway) -> None:
        openai = pytest.importorskip("openai")
        self.types = pytest.importorskip("openai.types.chat")
        self.stream_of = openai.AsyncStream
        self.client = openai.AsyncOpenAI(api_key=gateway.api_key, base_url=gateway.base_url)

    async def create(self) -> str:
        """Create a context."""
        body = {"model": MODEL, "messages": [{"role": "system", "content": "Be kind."}]}
        answer = await self.client.post("/context/create", cast_to=object, body=body)
        return str(answer["id"])

    async def ask(self, context: str, text: str, *, stream: bool = False) -> str:
        """Ask; return what a service would show."""
        body = {"context_id": context, "model": MODEL, "messages": [{"role": "user", "content": text}]}
        path = "/context/chat/completions"
        if not stream:
            answer = await self.client.post(path, cast_to=self.types.ChatCompletion, body=body)
            return str(answer.choices[0].message.content)
        kind = self.types.ChatCompletionChunk
        options = {
            "cast_to": kind,
            "body": {**body, "stream": True},
            "stream": True,
            "stream_cls": self.stream_of[kind],
        }
        chunks = await self.client.post(path, **options)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


class Ark:
    """The vendor's client."""

    def __init__(self, gateway: RecordingGateway) -> None:
        ark = pytest.importorskip("volcenginesdkarkruntime")
        self.client = ark.AsyncArk(api_key=gateway.api_key, base_url=gateway.base_url)

    async def create(self) -> str:
        """Create a context."""
        messages = [{"role": "system", "content": "Be kind."}]
        created = await self.client.context.create(model=MODEL, mode="session", messages=messages)
        return str(created.id)

    async def ask(self, context: str, text: str, *, stream: bool = False) -> str:
        """Ask; return what a service would show."""
        given: Any = {"context_id": context, "model": MODEL, "messages": [{"role": "user", "content": text}]}
        answer = await self.client.context.completions.create(**given, stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


class Ours:
    """The client of this package."""

    def __init__(self, gateway: RecordingGateway) -> None:
        self.client = AsyncSession(gateway.api_key, gateway.base_url, timeouts=0.4, retry=Retry(first_delay=0.01))

    async def create(self) -> str:
        """Create a context."""
        created = await self.client.context.create(model=MODEL, messages=[{"role": "system", "content": "Be kind."}])
        return created.id

    async def ask(self, context: str, text: str, *, stream: bool = False) -> str:
        """Ask; return what a service would show."""
        given: Any = {"context_id": context, "model": MODEL, "messages": [{"role": "user", "content": text}]}
        if not stream:
            return (await self.client.chat.create(**given)).text
        async with self.client.chat.stream(**given) as answer:
            return (await answer.finish()).text


@pytest.fixture(params=[Openai, Ark, Ours])
async def client(request: Any, gateway: RecordingGateway) -> AsyncIterator[Any]:
    """Each client, with the settings that it comes with."""
    client = request.param(gateway)
    yield client
    await (client.client.aclose() if isinstance(client, Ours) else client.client.close())


def found(gateway: RecordingGateway, *answers: str) -> list[str]:
    """The names of the findings."""
    return [finding.name for finding in gateway.findings(answers)]


async def test_a_lost_reply(gateway: RecordingGateway, client: Any) -> None:
    """The SDKs send a turn again whose answer was lost, and so store the turn twice; this package's client raises."""
    context = await client.create()
    gateway.lose_reply(on="chat", times=1)
    if isinstance(client, Ours):
        with pytest.raises(OutcomeUnknownError):
            await client.ask(context, "One?")
        gateway.assert_resilient()
        gateway.assert_no_turn_lost_or_doubled()
        return
    await client.ask(context, "One?")
    assert found(gateway) == ["turn_repeated"]
    with pytest.raises(AssertionError, match="stored the same turn: 'One\\?'"):
        gateway.assert_no_turn_lost_or_doubled()
    assert len(gateway.transcript(context)) == 5


async def test_a_long_pause(gateway: RecordingGateway, client: Any) -> None:
    """The vendor's SDK comes again after a second where the service asked for two minutes; this package's raises."""
    if isinstance(client, Openai):
        pytest.skip("waits as long as it is told, here two minutes")
    context = await client.create()
    gateway.rate_limit(120, on="chat", times=1)
    if isinstance(client, Ours):
        with pytest.raises(Exception, match="429"):
            await client.ask(context, "One?")
        gateway.assert_resilient()
        return
    await client.ask(context, "One?")
    assert found(gateway) == ["retry_after_ignored"]


async def test_a_truncated_stream(gateway: RecordingGateway, client: Any) -> None:
    """The SDKs take a stream that ends without `[DONE]` for whole; the client of this package raises."""
    context = await client.create()
    gateway.truncate(after_chunks=4, on="chat")
    if isinstance(client, Ours):
        with pytest.raises(Exception, match="ended"):
            await client.ask(context, "One?", stream=True)
        gateway.assert_resilient()
        return
    answer = await client.ask(context, "One?", stream=True)
    assert found(gateway) == []
    assert found(gateway, answer) == ["truncated_stream_accepted"]
    gateway.heal()
    await client.ask(context, "Two?")
    assert found(gateway) == ["truncated_stream_accepted"]


async def test_a_stall(gateway: RecordingGateway, client: Any) -> None:
    """The SDKs, whose limit is ten minutes, wait as long as an answer stalls; a client with a limit leaves."""
    context = await client.create()
    gateway.stall(0.8, on="chat", times=1)
    if isinstance(client, Ours):
        with pytest.raises(OutcomeUnknownError):
            await client.ask(context, "One?")
        gateway.assert_resilient()
        return
    await client.ask(context, "One?")
    assert found(gateway) == ["no_read_timeout"]
