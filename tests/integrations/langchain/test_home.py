"""Where the calls of a model run: in the loop of its session, from wherever they come."""

import asyncio
import gc
import threading

import pytest

from ctxcache import AsyncSession, InvalidInputError, Prefix, SessionError, system
from ctxcache.gateway import Gateway

pytest.importorskip("langchain_core")

from ctxcache.integrations.langchain import ChatCtxCache

MODEL = "Doubao-1.5-pro-32k"


def threads() -> list[threading.Thread]:
    """The threads of background loops."""
    return [thread for thread in threading.enumerate() if thread.name == "ctxcache"]


def prefix_over(session: AsyncSession) -> Prefix:
    """A prefix to be given to a model."""
    return Prefix(session, model=MODEL, messages=[system("You know the manual.")])


async def test_a_model_of_its_own() -> None:
    """A model's own session is reached from threads and loops alike, and closed with the model."""
    async with Gateway() as gateway:
        model = ChatCtxCache(
            model=MODEL, messages=["You know the manual."], api_key=gateway.api_key, base_url=gateway.base_url
        )
        with model:
            assert (await model.ainvoke("Hello")).text
            assert await asyncio.to_thread(lambda: asyncio.run(model.ainvoke("Hello")).text)
            assert await asyncio.to_thread(lambda: model.invoke("Hello").text)
            assert "".join([chunk.text async for chunk in model.astream("Hello")])
            assert await asyncio.to_thread(lambda: "".join(chunk.text for chunk in model.stream("Hello")))
            assert len(threads()) == 1
        assert not threads()
        assert model.asked.session.closed
        with pytest.raises(SessionError, match="closed"):
            await model.ainvoke("Hello")


async def test_a_forgotten_model() -> None:
    """A model that nobody closes ends when it is forgotten, without a warning."""
    async with Gateway() as gateway:
        model = ChatCtxCache(model=MODEL, messages=["manual"], api_key=gateway.api_key, base_url=gateway.base_url)
        await model.ainvoke("Hello")
        (thread,) = threads()
        del model
        gc.collect()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_a_given_prefix() -> None:
    """A given prefix is asked in the loop of its session: in place, or from threads; blocking that loop is refused."""
    async with Gateway() as gateway, AsyncSession(gateway.api_key, gateway.base_url) as session:
        model = ChatCtxCache(prefix=prefix_over(session))
        assert (await model.ainvoke("Hello")).text
        assert await asyncio.to_thread(lambda: model.invoke("Hello").text)
        assert await asyncio.to_thread(lambda: asyncio.run(model.ainvoke("Hello")).text)
        assert not threads()
        with pytest.raises(SessionError, match="await the async method"):
            model.invoke("Hello")
        with pytest.raises(SessionError, match="await the async method"):
            next(model.stream("Hello"))
        model.close()
        assert not session.closed


async def test_a_given_prefix_first_used_by_a_call_that_blocks() -> None:
    """Then the session lives in the model's loop, where later calls go, and is closed with the model."""
    async with Gateway() as gateway:
        session = AsyncSession(gateway.api_key, gateway.base_url)
        model = ChatCtxCache(prefix=prefix_over(session))
        assert await asyncio.to_thread(lambda: model.invoke("Hello").text)
        assert (await model.ainvoke("Hello")).text
        assert len(threads()) == 1
        model.close()
        assert session.closed


async def test_a_call_that_never_reached_the_session() -> None:
    """A session that no call has used is not the model's to close."""
    session = AsyncSession("sk-nobody", "http://127.0.0.1:1/v1")
    model = ChatCtxCache(prefix=prefix_over(session))
    with pytest.raises(InvalidInputError, match="max_tokens"):
        await asyncio.to_thread(lambda: model.invoke("Hello", max_tokens=-1))
    model.close()
    assert not session.closed


def test_a_loop_that_has_ended() -> None:
    """A given prefix whose event loop has ended is refused."""

    async def make(gateway: Gateway) -> ChatCtxCache:
        async with gateway, AsyncSession(gateway.api_key, gateway.base_url) as session:
            return ChatCtxCache(prefix=prefix_over(session))

    model = asyncio.run(make(Gateway()))
    with pytest.raises(SessionError, match="does not run any more"):
        model.invoke("Hello")
