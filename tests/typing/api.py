"""The public face as its users' type checkers see it. Never run: mypy and pyright read it."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, assert_type

import attrs

import ctxcache
from ctxcache import (
    APIStatusError,
    AsyncSession,
    ChatCompletion,
    ChatCompletionChunk,
    ChatStream,
    Context,
    Limits,
    Message,
    Retry,
    StreamInterruptedError,
    Timeouts,
    TruncationStrategy,
    Usage,
    assistant,
    system,
    user,
)
from ctxcache.cluster import PrefixAsker
from ctxcache.gateway import Gateway
from ctxcache.sse import ServerSentEvent, SSEDecoder


async def calls() -> None:
    """Both endpoints, every form."""
    async with AsyncSession(
        api_key="sk", base_url="http://127.0.0.1/v1", timeouts=Timeouts(idle=None), limits=Limits(), retry=Retry()
    ) as session:
        assert_type(session, AsyncSession)
        context = await session.context.create(
            model="m",
            messages=[system("a"), {"role": "user", "content": "b"}],
            mode="common_prefix",
            ttl=timedelta(hours=1),
        )
        assert_type(context, Context)
        assert_type(context.id, str)
        assert_type(context.ttl, int | None)
        assert_type(context.truncation_strategy, TruncationStrategy | None)
        await session.context.create(
            model="m", messages=[user("a")], ttl=3600, truncation_strategy={"type": "rolling_tokens"}
        )

        reply = await session.chat.create(context_id=context.id, model="m", messages=[user("a")], temperature=0.5)
        assert_type(reply, ChatCompletion)
        assert_type(reply.text, str)
        assert_type(reply.usage, Usage | None)
        assert_type(reply.request_id, str | None)
        assert_type(reply.raw, dict[str, Any])
        assert_type(reply.to_dict(), dict[str, Any])
        assert_type(reply.headers, Mapping[str, str])
        assert_type(reply.headers.get("x-ratelimit-remaining-requests"), str | None)
        assert_type(reply.status, int | None)

        opened = await session.chat.create(context_id=context.id, model="m", messages=[user("a")], stream=True)
        assert_type(opened, ChatStream)

        async with session.chat.stream(
            context_id=context.id, model="m", messages=[assistant("a"), user("b")], stop=["x"], n=2, serialize=False
        ) as stream:
            assert_type(stream, ChatStream)
            async for chunk in stream:
                assert_type(chunk, ChatCompletionChunk)
                assert_type(chunk.text, str)
        assert_type(stream.usage, Usage | None)
        assert_type(stream.completion(), ChatCompletion)
        assert_type(await stream.finish(), ChatCompletion)
        assert_type(stream.headers, Mapping[str, str] | None)
        async for data in stream.sse(heartbeat=None):
            assert_type(data, bytes)
        assert_type(stream.text(), AsyncIterator[str])


def models(
    reply: ChatCompletion, chunk: ChatCompletionChunk, usage: Usage, context: Context, event: ServerSentEvent
) -> None:
    """To a type checker, too, the models are attrs classes."""
    assert_type(attrs.asdict(usage), dict[str, Any])
    assert_type(attrs.evolve(usage, prompt_tokens=1), Usage)
    assert_type(attrs.evolve(reply, model="m"), ChatCompletion)
    assert_type(attrs.evolve(chunk, model="m"), ChatCompletionChunk)
    assert_type(attrs.evolve(context, ttl=None), Context)
    assert_type(attrs.evolve(event, data=""), ServerSentEvent)
    attrs.astuple(reply)
    attrs.fields(Usage)
    attrs.fields(Message)
    attrs.asdict(user("a"))
    assert_type(hash(user("a")), int)
    assert_type(Message("user", "a", extra={"name": "b"}).text, str)
    assert_type(Usage(prompt_tokens=1).prompt_tokens, int)
    assert_type(ServerSentEvent("a", "b", "c", 1).retry, int | None)


async def errors(session: AsyncSession) -> None:
    """What an error carries."""
    try:
        await session.chat.create(context_id="c", model="m", messages=[Message("user", "a")], repeatable=True)
    except APIStatusError as error:
        assert_type(error.status, int | None)
        assert_type(error.headers, Mapping[str, str])
        assert_type(error.code, str)
        assert_type(error.retry_after, float | None)
    except StreamInterruptedError as error:
        assert_type(error.cause, ctxcache.CtxCacheError | None)


async def gateway() -> None:
    """The local server."""
    async with Gateway() as server:
        assert_type(server.api_key, str)
        assert_type(server.base_url, str)


def decoder() -> None:
    """The decoder on its own."""
    assert_type(SSEDecoder(max_event_bytes=1).feed(b""), list[ServerSentEvent])


def clusters() -> None:
    """Askers take the parameters of a chat by name."""
    asker = PrefixAsker(model="m", messages=[user("a")], store="redis://host", ttl=3600, temperature=0.5, retry=Retry())
    asker.run({"question": ["a"]})
