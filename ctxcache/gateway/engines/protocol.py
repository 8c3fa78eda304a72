"""The protocol of an engine, which writes the text of an answer.

An engine of your own is a class with one method::

    class Shouting:
        async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
            for word in prompt.question[-1].text.split():
                await asyncio.sleep(0.05)
                yield word.upper() + " "

    async with Gateway(engine=Shouting()) as gateway: ...

Contexts, stop strings, limits, JSON and HTTP are left to the gateway, which cuts and counts the engine's text.
"""

from collections.abc import AsyncIterator
from typing import Protocol

import attrs

from ...models import ChatRequest, Message

__all__ = ["Engine", "Prompt"]


@attrs.frozen(kw_only=True)
class Prompt:
    """The input for one reply.

    Attributes:
        request: the whole chat request (`temperature`, `extra`, …).
        context: the context's messages within the window, oldest first.
        context_tokens: the tokens of `context`, by the gateway's count.
        question: the request's messages.
        index: the number of the reply among the `n`, from 0.
    """

    request: ChatRequest
    context: tuple[Message, ...]
    context_tokens: int
    question: tuple[Message, ...]
    index: int = 0


class Engine(Protocol):
    """Writes replies."""

    def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply, as an async iterator of pieces of any size; an async generator will do.

        The gateway calls `generate` once for each of the `n` replies, concurrently, and closes the iterator early
        (cancelled, then `aclose` if there is one) when the reply is cut or the client leaves. An `APIStatusError`
        raised here is sent to the client; any other exception is logged and sent as a 500 `InternalServiceError`.
        """
        ...
