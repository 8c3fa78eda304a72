"""`StreamedAnswer`: what a stream and a managed stream have in common. Both can be read whole, or relayed to a browser.

Of a relay:

- Chunks go on as the JSON that the service sent, not encoded anew; chunks that came together go on together.
- An error before the head of the answer is raised: a web framework can still answer with a status. After that an error
  is an event, since the status 200 has left. The end marker says that the answer came whole.
- However the relay ends, so does the stream.
- A heartbeat must not disturb the read that is waited for, so each read is a task, which ends with the stream.
"""

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Final, Self

from .. import checks
from ..errors import CtxCacheError, SessionError
from ..keywords import suggest_keywords
from ..models import ChatCompletion, ChatCompletionChunk
from ..response_head import ResponseHead
from ..sse import encode_data

__all__ = ["StreamedAnswer"]

_SHORTEST: Final = 0.001  # seconds
_LONGEST: Final = 86_400
_HEARTBEAT: Final = b": heartbeat\n\n"
_DONE: Final = b"data: [DONE]\n\n"


class StreamedAnswer(ABC):
    """A streamed answer: `async for` yields the chunks."""

    __slots__ = ()

    @abstractmethod
    async def open(self) -> Self:
        """Send the request and wait for the head of the answer; do nothing if the stream is open already."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]: ...

    @abstractmethod
    async def __anext__(self) -> ChatCompletionChunk: ...

    @abstractmethod
    def take_ready(self) -> list[ChatCompletionChunk]:
        """Return the chunks that came with the last one, in order; they count as delivered."""

    @abstractmethod
    async def aclose(self) -> None:
        """End the stream, give back connection and turn; chunks that were not read are lost."""

    @abstractmethod
    def completion(self) -> ChatCompletion:
        """Return the whole answer, folded from the chunks; nothing is sent again."""

    @property
    @abstractmethod
    def _ids(self) -> Mapping[str, str | None]:
        """The ids of the answer; none until the stream is opened."""

    @property
    @abstractmethod
    def _head(self) -> ResponseHead | None:
        """The head of the answer; None until the stream is opened."""

    @property
    def request_id(self) -> str | None:
        """The service's id of the request (`X-Request-Id`); None until the stream is opened."""
        return self._ids.get("request_id")

    @property
    def log_id(self) -> str | None:
        """The service's log id (`X-Tt-Logid`)."""
        return self._ids.get("log_id")

    @property
    def client_request_id(self) -> str | None:
        """Our id of the call (`X-Client-Request-Id`)."""
        return self._ids.get("client_request_id")

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers of the response: names in any case; None until the stream is opened."""
        return self._head

    @property
    def status(self) -> int | None:
        """The HTTP status; None until the stream is opened."""
        return None if self._head is None else self._head.status

    async def finish(self) -> ChatCompletion:
        """Read the rest, and return the whole answer, folded from the chunks; nothing is sent again.

        Raises:
            CtxCacheError: as iterating.
        """
        async for _ in self:
            pass
        return self.completion()

    @suggest_keywords
    def sse(self, *, heartbeat: float | None = 15.0) -> AsyncGenerator[bytes, None]:
        """Relay the stream to a browser, as server-sent events: `async for data in stream.sse(): await write(data)`.

        Each chunk is an event with the JSON that the service sent, in OpenAI's form; `data: [DONE]` follows only if
        the answer came whole. A stream that breaks ends with an event of the type `error` instead, whose data is
        `{"error": {"message": …, "type": …, "code": …}}`; the type is the name of the class. However the relay ends
        (read to the end, closed even before the first piece, cancelled or garbage-collected), the stream is closed.

        Args:
            heartbeat: seconds without data after which a comment is sent, in [0.001, 86400]; None for no comments.
                Proxies end silent connections, and a reader who left shows only when something is sent. Nothing is
                sent before the head of the answer comes: not while a `Prefix` creates its context, a turn of a
                `Conversation` waits, or the service is slow to begin.

        Raises:
            InvalidInputError: `heartbeat` is out of range.
            CtxCacheError: any of the family, from iterating, where the stream is opened by that: nothing was relayed.
        """
        allowed = "a number of seconds in [0.001, 86400], or None for no heartbeat"
        if heartbeat is not None:
            heartbeat = checks.number("heartbeat", heartbeat, _SHORTEST, _LONGEST, allowed)
        begun = sys.get_asyncgen_hooks().firstiter is not None  # else the event loop would not hear of the generator
        relay = _relayed(self, heartbeat, begun=begun)
        if begun:
            with suppress(StopIteration):
                relay.asend(None).send(None)
        return relay


async def _relayed(stream: StreamedAnswer, heartbeat: float | None, *, begun: bool) -> AsyncGenerator[bytes, None]:
    if begun:
        # `sse` runs the generator up to here: a generator that has not begun would leave the stream open when closed.
        try:
            yield b""
        except BaseException:
            await stream.aclose()
            raise
    await stream.open()
    aiter(stream)  # notes the reading task
    reading: asyncio.Task[tuple[bytes, bool]] | None = None
    try:
        last = False
        while not last:
            if heartbeat is None:
                data, last = await _next(stream)
            else:
                reading = asyncio.create_task(_next(stream))
                while not (await asyncio.wait((reading,), timeout=heartbeat))[0]:
                    yield _HEARTBEAT
                data, last = reading.result()
                reading = None
            yield data
    finally:
        await stream.aclose()  # which ends a read under way
        if reading is not None:
            await asyncio.wait((reading,))


async def _next(stream: StreamedAnswer) -> tuple[bytes, bool]:
    """Read on; return the next events, and whether they are the last."""
    try:
        chunk = await anext(stream)
    except StopAsyncIteration:
        return _DONE, True
    except SessionError:
        raise  # the caller's mistake: another task is reading
    except CtxCacheError as error:
        return _error_event(error), True
    return b"".join([encode_data(chunk.raw_json) for chunk in (chunk, *stream.take_ready())]), False


def _error_event(error: CtxCacheError) -> bytes:
    """Encode an error in the service's envelope."""
    return b"event: error\n" + encode_data(json.dumps({"error": error.to_dict()}).encode())
