"""openai-python, pointed at the Context API: the path below `/context`, the context's id in `extra_body`."""

from collections.abc import Callable
from typing import Any, Self

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from . import CONTEXT, DEFAULT_POOL, KEY, PROMPT


class OpenAI:
    """`AsyncOpenAI`."""

    def __init__(self, base_url: str, connections: int) -> None:
        self.chunks = self.characters = 0
        own: dict[str, Any] = {}
        if connections > DEFAULT_POOL:
            import httpx2

            limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=100)
            own["http_client"] = DefaultAsyncHttpxClient(limits=limits)
        self.client = AsyncOpenAI(api_key=KEY, base_url=f"{base_url}/context", **own)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _create(self, load: str, **options: Any) -> Any:
        return await self.client.chat.completions.create(
            model=load,
            messages=[{"role": "user", "content": PROMPT}],
            extra_body={"context_id": CONTEXT},
            **options,
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
