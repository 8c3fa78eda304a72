"""managed: the CPU that Prefix, Map and Conversation add to a plain chat."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ctxcache import AsyncSession, Conversation, Prefix, system, user

from .. import loads
from ..accounting import Meter, cpu_seconds
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import CONTEXT, KEY, OURS, PROMPT
from ._streams import url

# Short stretches in turn, so that a machine that changes its speed changes it for all ways alike.
_STRETCHES: Final = 10
_WAYS: Final = ("create", "ask", "map", "conversation")


def cases(size: Size) -> list[Case]:
    at_once = size.pick((1, 50), (50,), (3,))
    return [Case(f"{count} at once", {"at_once": count, "seconds": size.seconds * 2}) for count in at_once]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    at_once, seconds = case.params["at_once"], case.params["seconds"]
    load = loads.plain()
    async with AsyncSession(KEY, url(port)) as session:
        prefix = Prefix(session, model=load, messages=[system("The manual.")])
        chats = [Conversation(session, model=load, messages=[system("Be brief.")]) for _ in range(at_once)]

        async def create(_: int) -> None:
            await session.chat.create(context_id=CONTEXT, model=load, messages=[user(PROMPT)])

        async def ask(_: int) -> None:
            await prefix.ask(PROMPT)

        async def converse(number: int) -> None:
            await chats[number].ask(PROMPT)

        def repeated(call: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
            async def calls(count: int) -> None:
                async def caller(number: int) -> None:
                    for _ in range(count):
                        await call(number)

                await asyncio.gather(*(caller(number) for number in range(at_once)))

            return calls

        async def ask_many(count: int) -> None:
            async for answer in prefix.map([PROMPT] * (count * at_once), concurrency=at_once):
                if answer.error is not None:
                    raise answer.error

        ways = (repeated(create), repeated(ask), ask_many, repeated(converse))
        with Meter(port) as meter:
            costs = await _costs(ways, at_once, seconds)
    figures = {f"{name}_us": cost * 1e6 for name, cost in zip(_WAYS, costs, strict=True)}
    ratios = {f"{name}_ratio": cost / costs[0] for name, cost in zip(_WAYS[1:], costs[1:], strict=True)}
    return Sample(ratios | figures, meter.server, meter.flags)


async def _costs(ways: Sequence[Callable[[int], Awaitable[None]]], at_once: int, seconds: float) -> list[float]:
    """CPU seconds of one call, by each way: the median of its stretches."""
    for way in ways:
        await way(3)  # warm: the connections, the code, the contexts
    began = time.perf_counter()
    await ways[0](3)
    count = max(1, round(seconds / _STRETCHES / len(ways) / (time.perf_counter() - began) * 3))
    costs: list[list[float]] = [[] for _ in ways]
    for _ in range(_STRETCHES):
        for found, way in zip(costs, ways, strict=True):
            before = cpu_seconds()
            await way(count)
            found.append((cpu_seconds() - before) / (count * at_once))
    return [sorted(found)[len(found) // 2] for found in costs]


SCENARIO = Scenario(
    "managed",
    "Managed contexts: what they add to a plain chat",
    "CPU of one question by `Prefix.ask`, `Prefix.map` and `Conversation.ask`, as a multiple of `chat.create` on the "
    "same session: measured in turn within one process, so many at once, over warm connections.",
    (OURS,),
    cases,
    measure,
    (
        Metric("ask_ratio", "Prefix.ask", "×"),
        Metric("map_ratio", "Prefix.map, a question", "×"),
        Metric("conversation_ratio", "Conversation.ask", "×"),
        Metric("create_us", "chat.create", "µs"),
    ),
    rounds=5,
)
