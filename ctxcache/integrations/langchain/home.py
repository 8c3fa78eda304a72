"""The Prefix or Conversation of a model, and the event loop in which its calls run."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

from ...client.resources.parameters import ChatParameters
from ...client.session import AsyncSession
from ...errors import SessionError
from ...managed import Conversation, Prefix
from ...models import ChatCompletion, ChatCompletionChunk, Message
from ..sync import BackgroundLoop, LoopGate

__all__ = ["Home"]


class Home:
    """Asks one `Prefix` or `Conversation`, always in the event loop of its session.

    A session of the model's own lives in a background loop. A given session lives in the event loop of its first use:
    that of the caller, or, if the first call blocks, the background loop, which then closes the session, too.

    Args:
        asked: makes the calls.
        owns_session: whether the session is the model's own.
    """

    def __init__(self, asked: Prefix | Conversation, *, owns_session: bool) -> None:
        self.asked = asked
        self.process = os.getpid()
        self._owns_session = owns_session
        self._background = BackgroundLoop(_closing(asked.session))

    def close(self) -> None:
        """End the background loop, and close a session that lives there."""
        self._background.close()

    def gate(self, *, blocking: bool) -> LoopGate:
        """Return the way into the session's event loop.

        Args:
            blocking: whether the caller will block the running loop, if any.

        Raises:
            SessionError: the loop has ended.
        """
        loop = self.asked.session.loop or (None if blocking else asyncio.get_running_loop())
        if self._owns_session or loop is None or self._background.is_loop(loop):
            return self._background
        if not loop.is_running():
            raise SessionError("the event loop to which the session belongs does not run any more")
        return LoopGate(loop)

    async def ask(self, question: tuple[Message, ...], options: ChatParameters) -> ChatCompletion:
        """Ask one question."""
        return await self.asked.ask(question, **options)

    async def stream(
        self, question: tuple[Message, ...], options: ChatParameters
    ) -> AsyncGenerator[list[ChatCompletionChunk] | ChatCompletion, None]:
        """Yield the chunks of an answer, as many at once as have arrived; as the last item the whole answer.

        Raises:
            StreamInterruptedError: the stream broke off: there is no last item.
        """
        async with self.asked.stream(question, **options) as stream:
            async for chunk in stream:
                yield [chunk, *stream.take_ready()]
            yield stream.completion()


def _closing(session: AsyncSession) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        if session.loop is asyncio.get_running_loop():
            await session.aclose()

    return close
