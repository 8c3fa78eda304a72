"""`ManagedStream`: a streamed answer whose beginning may be repeated.

The stream itself is the session's `ChatStream`. A `StreamOwner` opens that stream, may open another instead as
long as no chunk was delivered, and hears once how the stream ended. After the first chunk the `ChatStream` does
everything: a chunk costs a further call, and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ..client.cancellation import CancelScope
from ..client.stream import ChatStream
from ..client.streamed_answer import StreamedAnswer
from ..errors import CtxCacheError, SessionError, StreamInterruptedError
from ..models import ChatCompletion, ChatCompletionChunk, Usage
from ..response_head import ResponseHead

__all__ = ["ManagedStream", "StreamOwner"]

T = TypeVar("T")


class StreamOwner(Protocol):
    """Opens a managed stream, may open it again, and hears how the stream ended.

    `begin` is called once, by the first use of the stream. After that `ended` is called once, in the thread of the
    event loop. `hold_here` may be called at any time.
    """

    async def begin(self) -> ChatStream:
        """Return an opened stream, on a context renewed if need be.

        Raises:
            CtxCacheError: any of the family; the stream then raises the error, and has ended.
        """
        ...

    async def again(self, error: CtxCacheError) -> ChatStream | None:
        """Return another opened stream after a failure before any chunk, or None to let the error be raised."""
        ...

    async def settled(self) -> None:
        """Wait, after `ended`, until the end is settled; not called where a task was cancelled."""
        ...

    def hold_here(self) -> None:
        """Note that the running task is now the reader."""
        ...

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Note the end, of whatever kind.

        Args:
            stream: the last stream opened, closed now or in a moment; or None.
            error: the error that was raised, a `CancelledError` included; None where the stream was read to the end
                (`stream.done`), or was closed or forgotten before.
        """
        ...


class ManagedStreamState(Enum):
    """Where a managed stream stands, and what may come next. Any other transition is ignored.

    =========  ================================================================  ===================================
    state      meaning                                                           next
    =========  ================================================================  ===================================
    NEW        the owner was not asked for a stream                              OPENING, CLOSED
    OPENING    the owner opens a stream, the first or one in place of a failed   OPEN, ENDED
    OPEN       there is a stream, and no chunk was delivered                     OPENING, DELIVERED, CLOSING, ENDED
    DELIVERED  a chunk was delivered: nothing is repeated any more               CLOSING, ENDED
    CLOSING    closed before the end; the owner has not heard yet                ENDED
    ENDED      the owner has heard of the end                                    none
    CLOSED     closed before the owner was asked for anything                    none
    =========  ================================================================  ===================================
    """

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    DELIVERED = "delivered"
    CLOSING = "closing"
    ENDED = "ended"
    CLOSED = "closed"

    next: "tuple[ManagedStreamState, ...]"


# A name is looked up faster than a member.
NEW, OPENING, OPEN, DELIVERED, CLOSING, ENDED, CLOSED = ManagedStreamState
NEW.next = (OPENING, CLOSED)
OPENING.next = (OPEN, ENDED)
OPEN.next = (OPENING, DELIVERED, CLOSING, ENDED)
DELIVERED.next = (CLOSING, ENDED)
CLOSING.next = (ENDED,)
ENDED.next = CLOSED.next = ()


class ManagedStream(StreamedAnswer):
    """A streamed answer to a call on a managed context; used like a `ChatStream`.

    `async with` the stream, and `async for` inside; or just `async for`: a stream closes at the end, at an error, or
    when garbage-collected. Nothing is sent before the stream is entered or iterated. A single task reads at a time.

    A context that turns out to be gone before the first chunk is renewed, and the call repeated. After the first
    chunk nothing is ever repeated.

    Raises, from iterating: the errors of a `ChatStream`.
    """

    __slots__ = ("__weakref__", "_failure", "_loop", "_owner", "_scope", "_state", "_stream")

    def __init__(self, owner: StreamOwner) -> None:
        self._owner = owner
        self._stream: ChatStream | None = None  # None while the owner opens one
        self._failure: CtxCacheError | None = None
        self._scope: CancelScope | None = None  # of the task that waits for the owner
        self._loop: asyncio.AbstractEventLoop | None = None  # from the first use on
        self._state = NEW

    def _to(self, state: ManagedStreamState) -> None:
        if state in self._state.next:
            self._state = state

    # --- opening and closing

    async def open(self) -> Self:
        """Send the request and wait for the head of the answer; does nothing if that was done before."""
        if self._stream is not None:
            return self
        if self._failure is not None:
            raise self._failure
        if self._state is not NEW:
            raise SessionError(
                "another task is opening this stream" if self._state is OPENING else "the stream is closed"
            )
        self._loop = asyncio.get_running_loop()
        try:
            self._stream = await self._until_closed(self._owner.begin())
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def _until_closed(self, opening: Awaitable[T]) -> T:
        """Wait for the owner to open a stream, until another task calls `aclose`."""
        self._to(OPENING)
        scope = self._scope = CancelScope()
        try:
            opened = await opening
        except asyncio.CancelledError:
            if not scope.cancelled or scope.cancelled_elsewhere():
                raise
        else:
            self._to(OPEN)
            return opened
        finally:
            self._scope = None
        # Whether the request had left by then is not known here; this error says so.
        raise StreamInterruptedError("the stream was closed while it was being opened", partial=self.partial())

    async def aclose(self) -> None:
        """End the stream, give back connection and turn; chunks that were not read are lost."""
        if self._scope is not None:
            self._scope.cancel()
            return
        self._to(CLOSED)
        self._to(CLOSING)
        if self._stream is not None:
            try:
                await self._stream.aclose()
            finally:
                await self._end(None)

    async def __aenter__(self) -> Self:
        await self.open()
        self._hold_here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and self._state is not ENDED and not self._loop.is_closed():
            with suppress(RuntimeError):  # the loop was closed meanwhile, in another thread
                self._loop.call_soon_threadsafe(self._owner.ended, self._stream, None)

    async def _end(self, error: BaseException | None) -> None:
        """Tell the owner, once."""
        if isinstance(error, CtxCacheError):
            self._failure = self._failure or error
        if self._state is not ENDED:
            self._to(ENDED)
            self._owner.ended(self._stream, error)
            if error is None or isinstance(error, CtxCacheError):
                await self._owner.settled()

    # --- reading

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        self._hold_here()
        return self

    def _hold_here(self) -> None:
        """Note the reader: streams may be opened and read in different tasks."""
        self._owner.hold_here()
        if self._stream is not None:
            self._stream.hold_here()

    async def __anext__(self) -> ChatCompletionChunk:
        while True:
            stream = self._stream
            if stream is None:
                await self.open()
                continue
            try:
                chunk = await stream.__anext__()
            except StopAsyncIteration:
                await self._end(None)
                raise
            except SessionError:
                raise  # the caller's mistake: another task is reading
            except CtxCacheError as error:
                failure = error
            except BaseException as error:
                await self._end(error)
                raise
            else:
                if self._state is OPEN:
                    self._to(DELIVERED)
                return chunk
            # Outside the handler, so that no error hangs on another without need.
            if self._state is not OPEN or not await self._begin_again(failure):
                await self._end(failure)
                raise failure

    async def _begin_again(self, failure: CtxCacheError) -> bool:
        """Ask the owner for another stream after a failure."""
        failed, self._stream = self._stream, None  # nobody may read meanwhile
        try:
            self._stream = await self._until_closed(self._owner.again(failure))
        except BaseException as error:
            self._stream = failed
            await self._end(error)
            raise
        if self._stream is None:
            self._stream = failed
            return False
        return True

    def text(self) -> AsyncIterator[str]:
        """Iterate over choice 0's text only, without the empty pieces."""
        return _Text(self)

    def take_ready(self) -> list[ChatCompletionChunk]:
        """Return the chunks that came with the last one, in order; they count as delivered."""
        return [] if self._stream is None else self._stream.take_ready()

    # --- the answer as a whole

    @property
    def done(self) -> bool:
        """Whether the answer came whole and was iterated over to the end."""
        return self._stream is not None and self._stream.done

    @property
    def usage(self) -> Usage | None:
        """The usage, once the service said so."""
        return None if self._stream is None else self._stream.usage

    @property
    def context_id(self) -> str | None:
        """The context that the chat runs on; None until the stream is opened."""
        return None if self._stream is None else self._stream.context_id

    @property
    def _ids(self) -> Mapping[str, str | None]:
        return {} if self._stream is None else self._stream._ids

    @property
    def _head(self) -> ResponseHead | None:
        return None if self._stream is None else self._stream._head

    def completion(self) -> ChatCompletion:
        """Return the whole answer, folded from the chunks; nothing is sent again.

        Raises:
            StreamInterruptedError: the end has not come, and half an answer is no answer; see `partial`.
        """
        if self._stream is not None:
            return self._stream.completion()
        raise StreamInterruptedError("the stream has not been opened", partial=self.partial())

    def partial(self) -> ChatCompletion:
        """Return the completion so far, folded; an unfinished choice has `finish_reason` None."""
        return ChatCompletion() if self._stream is None else self._stream.partial()


class _Text:
    """The text of a stream, piece by piece.

    Not an async generator: a forgotten one keeps its stream, and so a conversation's turn, until the event loop has
    closed the generator in a task. This iterator lets go at once.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: ManagedStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[str]:
        aiter(self._stream)  # which notes the reading task
        return self

    async def __anext__(self) -> str:
        while True:
            chunk = await self._stream.__anext__()
            if text := chunk.text:
                return text
