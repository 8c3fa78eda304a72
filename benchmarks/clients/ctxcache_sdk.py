"""ctxcache, as its README has it."""

from collections.abc import Callable
from typing import Self

from ctxcache import AsyncSession, Limits, user

from . import CONTEXT, DEFAULT_POOL, KEY, PROMPT


class CtxCache:
    """`AsyncSession`; the same with uvloop, which the worker's loop decides."""

    def __init__(self, base_url: str, connections: int) -> None:
        self.chunks = self.characters = 0
        limits = Limits() if connections <= DEFAULT_POOL else Limits(connections=connections)
        self.session = AsyncSession(KEY, base_url, limits=limits)

    async def __aenter__(self) -> Self:
        await self.session.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.aclose()

    async def stream(self, load: str) -> None:
        async with self.session.chat.stream(context_id=CONTEXT, model=load, messages=[user(PROMPT)]) as stream:
            async for chunk in stream:
                self.chunks += 1
                self.characters += len(chunk.text)

    async def stamped(self, load: str, note: Callable[[int], None]) -> None:
        async with self.session.chat.stream(context_id=CONTEXT, model=load, messages=[user(PROMPT)]) as stream:
            async for chunk in stream:
                self.chunks += 1
                note(chunk.created)

    async def call(self, load: str) -> None:
        reply = await self.session.chat.create(context_id=CONTEXT, model=load, messages=[user(PROMPT)])
        self.characters += len(reply.text)
