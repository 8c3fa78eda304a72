"""`ChatStream`: a streamed answer, a context manager first and an async iterator second.

Invariants:

- What a read brought is decoded at once; nothing is awaited between two chunks of one read.
- The stream is whole (`done`) after `[DONE]`, or after a `finish_reason` for every choice and a clean end of the body.
  Every other end is an error that carries what came, `partial`; it is raised after the chunks that came before it.
- However it ends, the exchange is ended too: read to its end (the connection is kept), or closed.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from .. import wire
from ..errors import (
    APIConnectionError,
    CtxCacheError,
    MalformedStreamError,
    ProtocolError,
    SessionError,
    StreamInterruptedError,
)
from ..fold import Fold
from ..models import ChatCompletion, ChatCompletionChunk, Usage
from ..sse import RawEvent, SSEDecoder
from .calls import Call, Calls

__all__ = ["ChatStream"]


class ChatStream:
    """A streamed answer to one chat call.

    `async with` it and `async for` over it; or just `async for`, and it closes at its end, at an error, or when it is
    garbage-collected. Nothing is sent before it is entered or iterated. One task reads it at a time.

    Attributes:
        done: whether the answer came whole and was iterated over to its end.
        usage: the usage, wherever in the stream the gateway put it; None until then, or if it sends none.
        request_id, log_id, client_request_id: ids of the answer, None until it is opened.

    Raises, from iterating:
        StreamInterruptedError: the stream ended before its end; `partial` is the completion so far.
        MalformedStreamError: likewise, since what came was no stream of chunks.
        APIStatusError: an error event came; the class is that of the same error outside a stream, with `partial`.
        CtxCacheError: any other of the family, from opening it.
    """

    def __init__(self, calls: Calls, begin: Callable[[], Call], expected_choices: int = 1) -> None:
        self._calls = calls
        self._begin = begin
        self._opening: Call | None = None
        self._call: Call | None = None
        self._decoder = SSEDecoder(calls.limits.event_bytes)
        self._fold = Fold(expected_choices)
        self._ready: deque[ChatCompletionChunk] = deque()
        self._failure: CtxCacheError | None = None
        self.done = False
        self._ended = False  # the end marker has come; chunks before it may still be waiting in _ready
        self._closed = False
        self._unread = False
        self._busy = False

    # --- opening and closing

    async def open(self) -> Self:
        """Send the request and wait for the head of the answer; does nothing if that was done before."""
        if self._call is not None:
            return self
        if self._failure is not None:
            raise self._failure
        if self._opening is not None or self._closed:
            raise SessionError("the stream is closed" if self._closed else "another task is opening this stream")
        try:
            self._opening = self._begin()
            await self._calls.open(self._opening)
            self._call, self._exchange = self._opening, self._opening.exchange
        except CtxCacheError as error:
            self._failure = error
            raise
        finally:
            self._opening = None
            self._closed = self._call is None  # the request is not sent a second time
        self._exchange.close_with(self)
        return self

    async def aclose(self) -> None:
        """End the stream and give back what it holds; what is not read yet is lost."""
        self._closed = True
        if self._ready:
            self._unread = True
            self._ready.clear()
        if self._opening is not None:
            self._opening.abort("the stream was closed")
        elif self._call is None or self._exchange.closed:
            return
        elif self._ended:
            await self._finish()
        else:
            self._log()
            self._exchange.fail(SessionError("the stream was closed while it was being read"))

    async def __aenter__(self) -> Self:
        await self.open()
        self._hold_turn()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- reading

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        self._hold_turn()
        return self

    def _hold_turn(self) -> None:
        if self._call is not None and self._call.turn is not None:
            self._call.turn.hold_here()  # a stream may be opened in one task and read in another

    async def __anext__(self) -> ChatCompletionChunk:
        if self._ready:
            return self._ready.popleft()
        if self._busy:
            raise SessionError("another task is reading this stream")
        if self._call is None:
            await self.open()
        if await self._fill():
            return self._ready.popleft()
        raise StopAsyncIteration

    async def text(self) -> AsyncIterator[str]:
        """Iterate over choice 0's text only, without the empty pieces."""
        async for chunk in self:
            if text := chunk.text:
                yield text

    async def _fill(self) -> bool:
        """Read until there is a chunk; False at the end."""
        exchange, decoder = self._exchange, self._decoder
        self._busy = True
        try:
            while not (self._ready or self._ended or self._failure or self._closed):
                exchange.wait_begins()
                events: list[RawEvent] = []
                while not events:  # bytes without an event, such as comments, do not end the wait
                    data = await exchange.read()
                    if not data:
                        break
                    events = decoder.feed_raw(data)
                exchange.wait_ends()
                if events:
                    self._take(events)
                else:
                    self._end_of_body()
                if decoder.too_large:
                    decoder.feed_raw(b"")  # raises what had to wait for the events before it
        except CtxCacheError as error:
            if not self._ended:
                self._failure = self._failure or self._as_stream_error(error)
        except BaseException:
            self._closed = True
            self._end()
            raise
        finally:
            self._busy = False
        if not self._ready:
            await self._settle()
            return False
        if self._ended and exchange.at_end:
            await self._finish()  # the connection and the turn are free before the last chunks are looked at
        return True

    def _take(self, events: list[RawEvent]) -> None:
        """Decode one read's events up to the end marker or the first that is no chunk."""
        chunks: list[ChatCompletionChunk] = []
        failure: CtxCacheError | None = None
        try:
            self._ended = wire.read_events(events, chunks)
        except CtxCacheError as error:
            failure = error
        self._fold.add(chunks)
        self._ready.extend(chunks)
        if failure is not None:
            self._failure = self._as_stream_error(failure)
        if chunks and self._call is not None and self._call.first_at is None:
            self._call.first_at = time.monotonic()

    def _end_of_body(self) -> None:
        # Some gateways forget the blank line after [DONE], or [DONE] itself; a cut event is no clean end.
        unfinished = self._decoder.leftover()
        self._ended = wire.is_done(unfinished) or (self._fold.finished and not self._decoder.buffered)
        if not self._ended:
            self._failure = self._interrupted("the stream ended before its end")

    async def _settle(self) -> None:
        """Nothing is left to deliver: end the exchange, and raise what there is to raise."""
        if self._failure is None and self._ended and not self._unread:
            if not self._exchange.closed:
                await self._finish()
            self.done = True
            return
        failure = self._failure or self._interrupted("the stream was closed before its end")
        self._end(failure)
        raise failure

    async def _finish(self) -> None:
        self._log()
        await self._exchange.finish()

    def _end(self, error: CtxCacheError | None = None) -> None:
        self._log(error)
        self._exchange.close()

    def _log(self, error: CtxCacheError | None = None) -> None:
        if self._call is not None:
            self._call.end(self._fold.usage, error)

    # --- errors

    def _interrupted(self, message: str, cause: CtxCacheError | None = None) -> CtxCacheError:
        return self._annotated(StreamInterruptedError(message, cause=cause))

    def _as_stream_error(self, error: CtxCacheError) -> CtxCacheError:
        if isinstance(error, ProtocolError):
            return self._annotated(MalformedStreamError(error.message, cause=error, body=error.body))
        if isinstance(error, APIConnectionError | SessionError):
            return self._interrupted(f"the stream was interrupted: {error.message}", error)
        return self._annotated(error)

    def _annotated(self, error: CtxCacheError) -> CtxCacheError:
        error.partial = self.partial()
        return error if self._call is None else self._calls.annotate(error, self._call)

    # --- the answer as a whole

    @property
    def usage(self) -> Usage | None:
        """The usage, as far as it came."""
        return self._fold.usage

    @property
    def request_id(self) -> str | None:
        """The service's id of the request (`X-Request-Id`)."""
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
    def _ids(self) -> dict[str, str | None]:
        return {} if self._call is None else self._call.ids

    def completion(self) -> ChatCompletion:
        """Return the whole answer, folded from the chunks; nothing is sent again.

        Raises:
            StreamInterruptedError: if the stream is not at its end, since half an answer is no answer; see `partial`.
        """
        if not self.done:
            raise self._interrupted("the stream has not been read to its end: see partial() for what came so far")
        return self.partial()

    def partial(self) -> ChatCompletion:
        """Return what came so far, folded; a choice that is not at its end has `finish_reason` None."""
        return self._fold.completion(**self._ids)
