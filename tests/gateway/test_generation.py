"""The engine at work, without HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache.errors import InternalServerError
from ctxcache.gateway.generation import Generation
from ctxcache.gateway.rules.table import AcceptedChat, ContextTable
from ctxcache.models import ChatRequest, ContextRequest, user


def call(clock: Any, n: int = 1) -> AcceptedChat:
    """An accepted call of `n` replies."""
    contexts = ContextTable({"m": 1000}, clock, lambda below: 0)
    context = contexts.create(ContextRequest(model="m", messages=[user("abcd")]))
    return contexts.begin(ChatRequest(context_id=context.id, model="m", messages=[user("abcd")], n=n))


async def test_leaving_waits_until_the_engine_is_closed(clock: Any) -> None:
    """Whatever an engine does when it is closed is done when the generation is over."""

    class Tidy:
        tidy = 0

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                self.tidy += 1

    engine = Tidy()
    before = asyncio.all_tasks()
    async with Generation(engine, call(clock, n=3), ahead=10) as generation:
        await generation.take()
    assert engine.tidy == 3
    assert asyncio.all_tasks() == before


async def test_an_engine_is_never_further_ahead_than_allowed(clock: Any) -> None:
    """It waits for the reader, and goes on as soon as something was taken."""

    class Counting:
        count = 0

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            for _ in range(25):
                self.count += 1
                yield "x"

    async with Generation(Counting(), call(clock), ahead=10) as generation:
        assert len(await generation.take()) == 10, "one that does not wait is not interrupted before"
    engine = Counting()
    taken = []
    async with Generation(engine, call(clock), ahead=10) as generation:
        while not generation.done:
            for _ in range(50):
                await asyncio.sleep(0)
            taken.append(await generation.take())
    assert [len(items) for items in taken] == [10, 10, 6]
    assert taken[-1][-1] == (0, None)


async def test_what_an_engine_wrote_before_it_failed_is_taken_first(clock: Any, told: Any) -> None:
    """Then comes its failure, and it is never `done`."""
    told.say("one", "two", RuntimeError())
    async with Generation(told, call(clock), ahead=10) as generation:
        await told.closed.wait()
        assert await generation.take() == [(0, "one"), (0, "two")]
        assert not generation.done
        for _ in range(2):
            with pytest.raises(InternalServerError, match="unexpected internal error"):
                await generation.take()
