"""`ChatStream`: a streamed answer, a context manager first and an async iterator second.

Invariants:

- The bytes of a read are decoded at once; nothing is awaited between two chunks of a read.
- The stream is whole (`done`) after `[DONE]`, or after a `finish_reason` for every choice and a clean end of the body.
  Every other end is an error that carries the answer so far, `partial`, and is raised after the earlier chunks.
- However the stream ends, the exchange ends too: read to the end (the connection is kept), or closed.
- Memory is bounded: `Limits.event_bytes` for an event, `Limits.answer_bytes` for the sum. Undecoded bytes are let go as
  soon as nothing more will be read.
"""

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from .. import service_errors, wire
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
from ..response_head import NO_HEAD, ResponseHead
from ..sse import RawEvent, SSEDecoder
from .call import Call
from .calls import Calls
from .stream_state import CLOSED, DONE, ENDED, FAILED, NEW, OPEN, OPENING, READING, StreamState
from .streamed_answer import StreamedAnswer

if TYPE_CHECKING:
    from .transport.exchange import Exchange

__all__ = ["ChatStream"]

_BEGINNING_BYTES: Final = 8 * 1024


class ChatStream(StreamedAnswer):
    """A streamed answer to a chat.

    `async with` the stream, and `async for` inside; or just `async for`: a stream closes at the end, at an error, or
    when garbage-collected. Nothing is sent before the stream is entered or iterated. A single task reads at a time.

    Attributes:
        done: whether the answer came whole and was iterated over to the end.
        usage: the usage, from any chunk of the stream; None before that chunk, or if the gateway sends none.
        request_id, log_id, client_request_id, headers, status: of the answer, None until the stream is opened.
        context_id: the context that the chat runs on; None until the stream is opened.

    Raises, from iterating:
        StreamInterruptedError: the stream ended early; `partial` is the completion so far.
        MalformedStreamError: likewise, because the body is no stream of chunks.
        APIStatusError: an error event came; the class is that of the same error outside a stream, with `partial`.
        CtxCacheError: any other of the family, from opening.
    """

    __slots__ = (
        "__weakref__",
        "_begin",
        "_beginning",
        "_call",
        "_calls",
        "_decoder",
        "_exchange",
        "_failure",
        "_fold",
        "_ready",
        "_received",
        "_state",
    )

    def __init__(self, calls: Calls, begin: Callable[[], Call], expected_choices: int = 1) -> None:
        self._calls = calls
        self._begin: Callable[[], Call] | None = begin
        self._call: Call | None = None
        self._exchange: Exchange | None = None  # from the head on
        self._decoder: SSEDecoder | None = SSEDecoder(calls.limits.event_bytes)  # while there may be more to decode
        self._received = 0  # bytes
        self._fold = Fold(expected_choices)
        self._beginning = b""  # of a body that may be no stream, until the first event
        self._ready: list[ChatCompletionChunk] = []  # decoded, the next one last
        self._failure: CtxCacheError | None = None
        self._state = NEW

    def _to(self, state: StreamState) -> None:
        if state in self._state.next:
            self._state = state
            if state is ENDED or not state.next:
                self._decoder = None

    # --- opening and closing

    async def open(self) -> Self:
        """Send the request and wait for the head of the answer; do nothing if the stream is open already."""
        if self._exchange is not None:
            return self
        if self._failure is not None:
            raise self._failure
        if self._begin is None or self._state is not NEW:
            opening = self._state is OPENING
            raise SessionError("another task is opening this stream" if opening else "the stream is closed")
        self._to(OPENING)
        begin, self._begin = self._begin, None  # no longer needed: frees the request and the messages
        try:
            self._call = begin()
            self._exchange = await self._calls.open(self._call)
            self._to(OPEN)
        except CtxCacheError as error:
            self._failure = error
            self._to(FAILED)
            raise
        finally:
            if self._exchange is None:
                self._to(CLOSED)  # the request is not sent a second time
        return self

    async def aclose(self) -> None:
        """End the stream, give back connection and turn; chunks that were not read are lost."""
        call, exchange = self._call, self._exchange
        if self._state is OPENING:
            if call is not None:
                call.abort("the stream was closed")
            return
        whole = self._state is ENDED
        unread, self._ready = self._ready, []
        if unread or not whole:
            self._to(CLOSED)
        if call is None or exchange is None or exchange.closed:
            return
        if whole:
            await exchange.finish()
        else:
            call.end()  # no error: the reader left
            exchange.fail(SessionError("the stream was closed while it was being read"))

    async def __aenter__(self) -> Self:
        await self.open()
        self.hold_here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._exchange is not None:
            self._exchange.abandon()

    # --- reading

    def hold_here(self) -> None:
        """Note that the running task reads the stream.

        On a session context, a call of that task would wait for ever, and is refused. Entering or iterating the stream
        notes the task as well.
        """
        if self._call is not None and self._call.queue is not None:
            self._call.queue.hold_here()

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        self.hold_here()
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        if self._ready:
            return self._ready.pop()
        if self._state is READING:
            raise SessionError("another task is reading this stream")
        if self._exchange is None:
            await self.open()
        if not await self._fill():
            await self._settle()
            raise StopAsyncIteration
        return self._ready.pop()

    def take_ready(self) -> list[ChatCompletionChunk]:
        """Return the chunks that came with the last one, in order; they count as delivered."""
        ready, self._ready = self._ready, []
        ready.reverse()
        return ready

    async def text(self) -> AsyncIterator[str]:
        """Iterate over choice 0's text only, without the empty pieces."""
        async for chunk in self:
            if text := chunk.text:
                yield text

    async def _fill(self) -> bool:
        """Read until there is a chunk; False at the end. Errors are raised elsewhere: this frame holds the bytes."""
        call, exchange = self._opened()
        most = self._calls.limits.answer_bytes
        if self._state is OPEN:  # as `_to` would, which every chunk would call twice
            self._state = READING
        try:
            while self._state is READING and (decoder := self._decoder) is not None:
                exchange.wait_begins()
                while data := await exchange.read():
                    self._received += len(data)
                    if (events := decoder.feed_raw(data)) or self._received > most:
                        exchange.wait_ends()
                        self._take(events, within=self._received <= most)
                        break
                    self._note_beginning(data)  # bytes without an event, such as comments, do not end the wait
                else:
                    exchange.wait_ends()
                    self._end_of_body(decoder)
                if decoder.too_large:
                    decoder.feed_raw(b"")  # raises the error that waited for the events before it
                if self._ready:
                    break
        except CtxCacheError as error:
            if self._state is not ENDED:
                self._fail(self._as_stream_error(error))
        except BaseException:
            self._to(CLOSED)
            call.end()
            exchange.close()
            raise
        if self._state is READING:
            self._state = OPEN
        elif self._state is ENDED and exchange.at_end:
            await exchange.finish()  # the connection and the turn are free before the last chunks are delivered
        return bool(self._ready)

    def _opened(self) -> "tuple[Call, Exchange]":
        if self._call is None or self._exchange is None:  # pragma: no cover  # `open` has set both, or raised
            raise SessionError("the stream is not open")
        return self._call, self._exchange

    def _note_beginning(self, data: bytes) -> None:
        """Keep the beginning of a body that is JSON instead of events, and may describe an error."""
        beginning = self._beginning + data
        if len(beginning) <= _BEGINNING_BYTES and beginning.lstrip()[:1] in (b"{", b"["):
            self._beginning = beginning

    def _take(self, events: list[RawEvent], *, within: bool) -> None:
        """Decode a read's events up to the end marker or the first event that is not a chunk."""
        chunks: list[ChatCompletionChunk] = []
        ended, failure = False, None
        try:
            ended = wire.read_events(events, chunks)
            if not within:
                most = self._calls.limits.answer_bytes
                raise ProtocolError(f"the server sent a stream of more than Limits.answer_bytes = {most:,} bytes")
        except CtxCacheError as error:
            failure = error
        self._fold.add(chunks)
        if failure is not None:
            self._fail(self._as_stream_error(failure))  # with the chunks that came before
        elif ended:
            self._end()
        if chunks and self._call is not None:
            self._call.usage = self._fold.usage
            if self._call.first_at is None:
                self._call.first_at = self._calls.environment.clock()
        chunks.reverse()
        self._ready = chunks

    def _end_of_body(self, decoder: SSEDecoder) -> None:
        # Some gateways forget the blank line after [DONE], or [DONE] itself; a cut event is no clean end.
        unfinished = decoder.leftover()
        if wire.is_done(unfinished) or (self._fold.finished and not decoder.buffered):
            self._end()
        elif self._beginning:
            error = service_errors.error_instead_of_stream(self._beginning, "JSON")
            self._fail(self._as_stream_error(error))
        else:
            self._fail(self._interrupted("the stream ended early: neither [DONE] nor a finish reason came"))

    def _end(self) -> None:
        """Handle the end marker: a stream that answered nothing is an error, like a plain answer without choices."""
        if self._fold.answered:
            self._to(ENDED)
        else:
            self._fail(self._as_stream_error(ProtocolError("the stream ended without an answer")))

    def _fail(self, failure: CtxCacheError) -> None:
        self._failure = self._failure or failure
        self._to(FAILED)

    async def _settle(self) -> None:
        """Nothing is left to deliver: end the exchange, and raise the error, if any."""
        call, exchange = self._opened()
        if self._state in (ENDED, DONE):
            if not exchange.closed:
                await exchange.finish()
            self._to(DONE)
            return
        failure = self._failure or self._interrupted("the stream was closed before its end")
        call.end(failure)
        exchange.close()
        raise failure

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
        return error if self._call is None or self._exchange is None else self._call.annotate(error)

    # --- the answer as a whole

    @property
    def done(self) -> bool:
        """Whether the answer came whole and was iterated over to the end."""
        return self._state is DONE

    @property
    def usage(self) -> Usage | None:
        """The usage, once the service said so."""
        return self._fold.usage

    @property
    def context_id(self) -> str | None:
        """The context that the chat runs on."""
        return None if self._call is None or self._exchange is None else self._call.request.context_id

    @property
    def _ids(self) -> dict[str, str | None]:
        return {} if self._exchange is None else self._exchange.ids

    @property
    def _head(self) -> ResponseHead | None:
        return None if self._exchange is None else self._exchange.head

    def completion(self) -> ChatCompletion:
        """Return the whole answer, folded from the chunks; nothing is sent again.

        Raises:
            StreamInterruptedError: the end has not come, and half an answer is no answer; see `partial`.
        """
        if not self.done:
            raise self._interrupted("the stream has not been read to its end: see partial() for what came so far")
        return self.partial()

    def partial(self) -> ChatCompletion:
        """Return the completion so far, folded; an unfinished choice has `finish_reason` None."""
        head = self._head
        return self._fold.completion(**self._ids, context_id=self.context_id, head=NO_HEAD if head is None else head)
