"""`ManagedStream`: a streamed answer whose beginning may be repeated.

The stream itself is the session's `ChatStream`. What is added is who answers for it: a `StreamOwner` opens it, may open
another one in its place as long as no chunk was delivered, and is told once how it ended. After the first chunk
everything is the `ChatStream`'s doing: a chunk costs one more call, and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ..client.stream import ChatStream
from ..errors import CtxCacheError, SessionError, StreamInterruptedError
from ..models import ChatCompletion, ChatCompletionChunk, Usage

__all__ = ["ManagedStream", "StreamOwner"]

T = TypeVar("T")


class StreamOwner(Protocol):
    """Who answers for one `ManagedStream`.

    `begin` is called once, by the first use of the stream. If it was called, `ended` will be, once, in the thread of
    the event loop. `hold_here` may be called at any time.
    """

    async def begin(self) -> ChatStream:
        """Return an opened stream; what had to be renewed for that was renewed.

        Raises:
            CtxCacheError: any of the family; the stream then raises it, and has ended.
        """
        ...

    async def again(self, error: CtxCacheError) -> ChatStream | None:
        """Return another opened stream for one that failed before any chunk, or None to let the error be raised."""
        ...

    def hold_here(self) -> None:
        """Note that the running task is now the one that reads."""
        ...

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Note the end, however it came.

        Args:
            stream: the last one opened; None if there was none. It is closed, or will be in a moment.
            error: what was raised, a `CancelledError` included; None where the stream was read to its end
                (`stream.done`), or was closed or forgotten before it.
        """
        ...


class ManagedStream:
    """A streamed answer to one call on a managed context; it is used like a `ChatStream`.

    `async with` it and `async for` over it; or just `async for`, and it closes at its end, at an error, or when it is
    garbage-collected. Nothing is sent before it is entered or iterated. One task reads it at a time.

    A context that turns out to be gone before the first chunk is renewed, and the call repeated once. After the first
    chunk nothing is ever repeated.

    Raises, from iterating: what a `ChatStream` raises.
    """

    def __init__(self, owner: StreamOwner) -> None:
        self._owner = owner
        self._stream: ChatStream | None = None
        self._failure: CtxCacheError | None = None
        self._opener: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # once it has begun
        self._delivered = False
        self._closed = False
        self._ended = False

    # --- opening and closing

    async def open(self) -> Self:
        """Send the request and wait for the head of the answer; does nothing if that was done before."""
        if self._stream is not None:
            return self
        if self._failure is not None:
            raise self._failure
        if self._opener is not None or self._closed or self._ended:
            raise SessionError("another task is opening this stream" if self._opener else "the stream is closed")
        self._loop = asyncio.get_running_loop()
        try:
            self._stream = await self._until_closed(self._owner.begin())
        except BaseException as error:
            self._end(error)
            raise
        return self

    async def _until_closed(self, opening: Awaitable[T]) -> T:
        """Wait for the owner to open a stream, until another task closes this one."""
        task = asyncio.current_task()
        if task is None:  # pragma: no cover  # coroutines run in tasks
            raise SessionError("a stream is opened in a task")
        cancelling = task.cancelling()
        self._opener = task
        try:
            return await opening
        except asyncio.CancelledError:
            # As asyncio.timeout() does: ours only if nobody else cancelled the task as well.
            if not self._closed or task.uncancel() > cancelling:
                raise
        finally:
            self._opener = None
        # Whether the request had left by then is not known here, and this is an error that says so.
        raise StreamInterruptedError("the stream was closed while it was being opened", partial=self.partial())

    async def aclose(self) -> None:
        """End the stream and give back what it holds; what is not read yet is lost."""
        self._closed = True
        if self._opener is not None:
            self._opener.cancel()
        elif self._stream is not None:
            try:
                await self._stream.aclose()
            finally:
                self._end(None)

    async def __aenter__(self) -> Self:
        await self.open()
        self._hold_here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and not self._ended and not self._loop.is_closed():
            with suppress(RuntimeError):  # it was closed in this moment, in another thread
                self._loop.call_soon_threadsafe(self._owner.ended, self._stream, None)

    def _end(self, error: BaseException | None) -> None:
        """Tell the owner, once."""
        if isinstance(error, CtxCacheError):
            self._failure = self._failure or error
        if not self._ended:
            self._ended = True
            self._owner.ended(self._stream, error)

    # --- reading

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        self._hold_here()
        return self

    def _hold_here(self) -> None:
        """Note who reads: a stream may be opened in one task and read in another."""
        self._owner.hold_here()
        if self._stream is not None:
            aiter(self._stream)

    async def __anext__(self) -> ChatCompletionChunk:
        while True:
            stream = self._stream
            if stream is None:
                await self.open()
                continue
            try:
                chunk = await stream.__anext__()
            except StopAsyncIteration:
                self._end(None)
                raise
            except SessionError:
                raise  # the caller's mistake: another task is reading
            except CtxCacheError as error:
                failure = error
            except BaseException as error:
                self._end(error)
                raise
            else:
                self._delivered = True
                return chunk
            # Outside the handler, so that no error hangs on another without need.
            if self._delivered or self._ended or self._closed or not await self._begin_again(failure):
                self._end(failure)
                raise failure

    async def _begin_again(self, failure: CtxCacheError) -> bool:
        """Ask the owner for another stream in place of the one that failed."""
        failed, self._stream = self._stream, None  # nobody may read while it is replaced
        try:
            self._stream = await self._until_closed(self._owner.again(failure))
        except BaseException as error:
            self._stream = failed
            self._end(error)
            raise
        if self._stream is None:
            self._stream = failed
            return False
        return True

    def text(self) -> AsyncIterator[str]:
        """Iterate over choice 0's text only, without the empty pieces."""
        return _Text(self)

    # --- the answer as a whole

    @property
    def done(self) -> bool:
        """Whether the answer came whole and was iterated over to its end."""
        return self._stream is not None and self._stream.done

    @property
    def usage(self) -> Usage | None:
        """The usage, as far as it came."""
        return None if self._stream is None else self._stream.usage

    @property
    def request_id(self) -> str | None:
        """The service's id of the request (`X-Request-Id`); None until it is opened."""
        return None if self._stream is None else self._stream.request_id

    @property
    def log_id(self) -> str | None:
        """The service's log id (`X-Tt-Logid`)."""
        return None if self._stream is None else self._stream.log_id

    @property
    def client_request_id(self) -> str | None:
        """Our id of the call (`X-Client-Request-Id`)."""
        return None if self._stream is None else self._stream.client_request_id

    def completion(self) -> ChatCompletion:
        """Return the whole answer, folded from the chunks; nothing is sent again.

        Raises:
            StreamInterruptedError: if the stream is not at its end, since half an answer is no answer; see `partial`.
        """
        if self._stream is not None:
            return self._stream.completion()
        raise StreamInterruptedError("the stream has not been opened", partial=self.partial())

    def partial(self) -> ChatCompletion:
        """Return what came so far, folded; a choice that is not at its end has `finish_reason` None."""
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
