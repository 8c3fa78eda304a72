"""openai's own client before the proxy, with nothing changed but the base URL and the key."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from ctxcache.gateway import Gateway

from .conftest import MODEL, Front, NotedEngine, marked

if TYPE_CHECKING:
    from openai import AsyncOpenAI

openai = pytest.importorskip("openai")


@pytest.fixture
async def client(front: Front) -> AsyncIterator["AsyncOpenAI"]:
    """A client as a program would make it."""
    async with openai.AsyncOpenAI(api_key=front.proxy.api_key, base_url=front.proxy.base_url) as client:
        yield client


async def test_chat(client: "AsyncOpenAI") -> None:
    """A chat is answered over a context, with the cached tokens in the usage; the header can be read."""
    for way in ("created", "hit"):
        response = await client.chat.completions.with_raw_response.create(**marked("Hi"))
        answer = response.parse()
        assert response.headers["X-Ctxcache"].startswith(way)
        assert (answer.choices[0].message.content, answer.model) == ("echo: Hi ", MODEL)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        assert (answer.usage.prompt_tokens_details.cached_tokens or 0) > 500


async def test_stream(client: "AsyncOpenAI") -> None:
    """A stream is read to its end, with the usage last."""
    body: Any = marked("Hi", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in await client.chat.completions.create(**body)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "echo: Hi "
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 500


async def test_many_at_once(client: "AsyncOpenAI", engine: NotedEngine) -> None:
    """200 chats at once on a new beginning share one context."""
    asked = [client.chat.completions.create(**marked(f"question {number}")) for number in range(200)]
    answers = await asyncio.gather(*asked)
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == [f"echo: question {number} " for number in range(200)]
    assert len(engine.contexts) == 1


async def test_expiry(client: "AsyncOpenAI", gateway: Gateway, engine: NotedEngine) -> None:
    """A context that has ended is replaced, unnoticed."""
    await client.chat.completions.create(**marked("one"))
    assert gateway.expire(engine.contexts[0].id)
    answer = await client.chat.completions.create(**marked("two"))
    assert answer.choices[0].message.content == "echo: two "


async def test_leaving_a_stream(client: "AsyncOpenAI", engine: NotedEngine) -> None:
    """A stream that is closed early ends the call at the service."""
    async with await client.chat.completions.create(**marked("endless", stream=True)) as stream:
        await anext(stream)
    async with asyncio.timeout(5):
        await engine.closed.wait()


async def test_errors(client: "AsyncOpenAI") -> None:
    """An error has the class of its status, with the service's code."""
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(**{**marked("x"), "model": "no-such-model"})
    assert refused.value.code == "InvalidEndpointOrModel.NotFound"
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="sk-wrong").models.list()


async def test_models(client: "AsyncOpenAI") -> None:
    """The models are listed."""
    assert MODEL in [model.id async for model in client.models.list()]
