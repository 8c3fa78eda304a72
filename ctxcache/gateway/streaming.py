"""A streamed answer on its way to the client.

The response head is sent with the first chunk: an engine that fails before the first piece causes a plain HTTP error.
A later error is sent as an event, and the stream ends without `[DONE]`.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from aiohttp import HttpVersion11, web

from ..config import UNSET
from ..errors import APIStatusError
from .bodies import Headers
from .contexts import Contexts
from .generation import Generation
from .rules import answers, refusals
from .rules.served import AcceptedChat

__all__ = ["StreamedAnswer"]

_log: Final = logging.getLogger("ctxcache.gateway")
_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class StreamedAnswer:
    """One streamed answer.

    Args:
        request: the HTTP request to answer.
        headers: the headers that identify the request; the stream's own are added.
        chat: the accepted chat.
        generation: the engine's output.
        contexts: keeps the turn.
        answer_id: `id` of every chunk.
        created: `created` of every chunk, Unix seconds.
        chunks_per_write: the most chunks in one write to the socket.
        make_response: makes the HTTP response.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        headers: Headers,
        chat: AcceptedChat,
        generation: Generation,
        contexts: Contexts,
        *,
        answer_id: str,
        created: int,
        chunks_per_write: int,
        make_response: Callable[..., web.StreamResponse] = web.StreamResponse,
    ) -> None:
        options = chat.request.stream_options
        self._with_usage: Final = options is not UNSET and options.get("include_usage") is True
        self._request: Final = request
        self._request_id: Final = headers["X-Request-Id"]
        self._response: Final = make_response(headers={**headers, **_HEADERS})
        if request.version < HttpVersion11:
            self._response.force_close()  # without chunks, the end of the connection is the end of the answer
        self._chat: Final = chat
        self._generation: Final = generation
        self._contexts: Final = contexts
        self._chunks: Final = answers.Chunks(
            answer_id, created, chat.context.model, chat.replies, usage=self._with_usage
        )
        self._chunks_per_write: Final = chunks_per_write

    async def send(self) -> web.StreamResponse:
        """Send the answer to its end, and store the turn.

        Raises:
            Exception: anything failed before anything was sent.
        """
        with suppress(ConnectionError):  # the client left; if the event loop notices first, this task is cancelled
            try:
                await self._send()
            except ConnectionError:
                raise
            except Exception as error:
                if not self._response.prepared:
                    raise
                await self._response.write_eof(answers.error_event(self._envelope(error)))
        return self._response

    def _envelope(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, APIStatusError):
            return refusals.event_envelope(error, self._request_id)
        _log.error("a stream failed: %s", self._request_id, exc_info=error)
        return refusals.envelope(refusals.engine_failed(), self._request_id)

    async def _send(self) -> None:
        generation, response, encode = self._generation, self._response, self._chunks.events
        events = encode(await generation.take())
        await response.prepare(self._request)
        while not generation.done:
            for data in events if len(events) == 1 else self._join(events):
                await response.write(data)
            events = encode(await generation.take())
        # The turn is stored and the context free before the client learns that the answer is complete.
        usage = generation.usage(await self._contexts.complete(self._chat))
        *writes, last = self._join([*events, *([self._chunks.usage(usage)] if self._with_usage else []), answers.DONE])
        for data in writes:
            await response.write(data)
        await response.write_eof(last)

    def _join(self, events: list[bytes]) -> list[bytes]:
        """Join the events of each write."""
        size = self._chunks_per_write
        return [b"".join(events[start : start + size]) for start in range(0, len(events), size)]
