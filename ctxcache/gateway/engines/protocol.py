"""What an engine is: where the text of an answer comes from.

An engine of your own is a class with one method::

    class Shouting:
        async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
            for word in prompt.question[-1].content.split():
                await asyncio.sleep(0.05)
                yield word.upper() + " "

    async with Gateway(engine=Shouting()) as gateway: ...

It knows nothing of contexts, stop strings, limits, JSON or HTTP: the gateway cuts its text and counts it.
"""

from collections.abc import AsyncIterator
from typing import Protocol

import attrs

from ...models import ChatRequest, Message

__all__ = ["Engine", "Prompt"]


@attrs.frozen(kw_only=True)
class Prompt:
    """What an engine is to answer.

    Attributes:
        request: the chat as it was asked (`temperature`, `extra`, … are there).
        context: the messages the context holds for it, oldest first.
        context_tokens: their tokens, by the gateway's count.
        question: the messages that came with the call.
        index: which of the `n` replies this is, from 0.
    """

    request: ChatRequest
    context: tuple[Message, ...]
    context_tokens: int
    question: tuple[Message, ...]
    index: int = 0


class Engine(Protocol):
    """Writes replies."""

    def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write one reply, in pieces of any size (an async generator is one).

        It is called once for each of the `n` replies, all at the same time. It is closed early (cancelled, then
        `aclose`d where it has that) when the reply is cut or the client leaves. An `APIStatusError` it raises is sent
        as it is; any other exception is logged and sent as a 500 `InternalServiceError`.
        """
        ...
