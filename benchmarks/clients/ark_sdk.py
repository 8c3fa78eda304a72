"""volcengine-ark-runtime, the vendor's SDK: `context.completions`."""

from collections.abc import Callable
from typing import Any, Self

from volcenginesdkarkruntime import AsyncArk  # type: ignore[import-untyped]

from . import CONTEXT, DEFAULT_POOL, KEY, PROMPT


class Ark:
    """`AsyncArk`."""

    def __init__(self, base_url: str, connections: int) -> None:
        self.chunks = self.characters = 0
        own: dict[str, Any] = {}
        if connections > DEFAULT_POOL:
            import httpx
            from volcenginesdkarkruntime._constants import DEFAULT_TIMEOUT  # type: ignore[import-untyped]

            limits = httpx.Limits(max_connections=connections, max_keepalive_connections=100)
            own["http_client"] = httpx.AsyncClient(limits=limits, timeout=DEFAULT_TIMEOUT, base_url=base_url)
        self.client = AsyncArk(api_key=KEY, base_url=base_url, **own)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _create(self, load: str, **options: Any) -> Any:
        return await self.client.context.completions.create(
            context_id=CONTEXT, model=load, messages=[{"role": "user", "content": PROMPT}], **options
        )

    async def stream(self, load: str) -> None:
        async with await self._create(load, stream=True) as stream:
            async for chunk in stream:
                self.chunks += 1
                if chunk.choices:
                    self.characters += len(chunk.choices[0].delta.content or "")

    async def stamped(self, load: str, note: Callable[[int], None]) -> None:
        async with await self._create(load, stream=True) as stream:
            async for chunk in stream:
                self.chunks += 1
                note(chunk.created)

    async def call(self, load: str) -> None:
        reply = await self._create(load)
        self.characters += len(reply.choices[0].message.content)
