"""Calls into an event loop from plain threads and from other event loops.

Connections belong to one event loop, while the callers of a framework are anywhere: in threads without a loop, in a
loop that ends after each call, in two loops at once. So all calls of one adapter run in one loop, its home: the loop of
a given session (`LoopGate`), or a loop in a thread of its own (`BackgroundLoop`).

A stream crosses threads by request: the reader asks for an item, the home loop answers with the next. At most one item
is read ahead, so a slow reader slows the service down, and no buffer grows.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

from ..errors import SessionError

__all__ = ["BackgroundLoop", "LoopGate"]

T = TypeVar("T")

_CLOSE_SECONDS: Final = 5.0  # the longest wait for a thread to end
_LOOK_SECONDS: Final = 1.0  # a signal that comes just before a wait is noticed after it
_END: Final = object()


class LoopGate:
    """The way into a running event loop, from any thread and from any other event loop.

    Args:
        loop: where everything runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and block until the result. An interrupted wait cancels the coroutine.

        Raises:
            SessionError: the loop is closed, or runs in this very thread, which would wait for itself.
        """
        try:
            self._refuse_own_thread()
        except BaseException:
            coroutine.close()
            raise
        return _wait(self._submit(coroutine))

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and await the result here. Cancelling the caller cancels the coroutine.

        Raises:
            SessionError: the loop is closed.
        """
        if self._is_here():
            return await coroutine
        return await _wait_async(self._submit(coroutine))

    def iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """Yield the items of an async generator, which is made, runs and ends in one task of the loop.

        Closing or forgetting the iterator closes the generator.

        Raises:
            SessionError: as from `run`.
        """
        self._refuse_own_thread()
        relay = _Relay(self, make)
        try:
            while (item := _wait(relay.next())) is not _END:
                yield item
        finally:
            relay.close()

    async def aiterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """Yield the same items in this event loop.

        Raises:
            SessionError: the loop is closed.
        """
        if self._is_here():
            async with aclosing(make()) as items:
                async for item in items:
                    yield item
            return
        relay = _Relay(self, make)
        try:
            while (item := await _wait_async(relay.next())) is not _END:
                yield item
        finally:
            relay.close()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call a function in the loop, soon.

        Raises:
            SessionError: the loop is closed.
        """
        self._enter(lambda loop: loop.call_soon_threadsafe(callback, *args))

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        try:
            return self._enter(lambda loop: asyncio.run_coroutine_threadsafe(coroutine, loop))
        except BaseException:
            coroutine.close()
            raise

    def _enter(self, call: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        with suppress(RuntimeError):
            return call(self._loop)
        raise SessionError("the event loop of the session is closed")

    def _is_here(self) -> bool:
        return _running_loop() is self._loop

    def _refuse_own_thread(self) -> None:
        if self._is_here():
            raise SessionError(
                "a call that blocks would stop the event loop to which the session belongs: await the async method"
            )


class BackgroundLoop(LoopGate):
    """An event loop in a thread of its own, which starts with the first call.

    `close` ends the thread; so does the garbage collector, and the end of the process. A process forked from this one
    has no such thread: make another object there (`process` tells).

    Args:
        at_close: awaited in the loop at the end, after all calls were cancelled. Must not refer to this object.

    Attributes:
        process: the id of the process that the object belongs to.
    """

    def __init__(self, at_close: Callable[[], Awaitable[object]] | None = None) -> None:
        self.process = os.getpid()
        self._thread = _Thread(at_close)
        self._finalizer = weakref.finalize(self, self._thread.end)
        self._finalizer.atexit = False  # `_end_all` also waits

    def close(self) -> None:
        """Cancel all calls, close what belongs to the loop and wait for the thread to end. Later calls are refused."""
        self._thread.end()
        self._thread.join()

    def _enter(self, call: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        return self._thread.enter(call)

    def is_loop(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether an event loop is this one."""
        return loop is not None and self._thread.loop is loop

    def _is_here(self) -> bool:
        return self.is_loop(_running_loop())


class _Thread:
    """The thread of a `BackgroundLoop`, which must not keep that object alive.

    Attributes:
        loop: the event loop; None before the first call.
    """

    def __init__(self, at_close: Callable[[], Awaitable[object]] | None) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.process = os.getpid()
        self._at_close = at_close
        # The garbage collector may call `end` in the middle of `enter`, in the same thread.
        self._lock = threading.RLock()
        self._ended = False
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None

    def enter(self, call: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        """Call a function with the loop, started unless running. Nothing gets in after the end."""
        with self._lock:
            if self._ended:
                raise SessionError("the event loop of the session is closed")
            return call(self.loop or self._start())

    def end(self) -> None:
        """Ask the thread to end; return at once."""
        with self._lock:
            if not self._ended and self.loop is not None:
                self.loop.call_soon_threadsafe(self._stop.set)
            self._ended = True

    def join(self) -> None:
        """Wait until the thread has ended, unless this is the thread."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)

    def _start(self) -> asyncio.AbstractEventLoop:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._serve, args=[started], name="ctxcache", daemon=True)
        self._thread.start()
        self.loop = started.result()
        return self.loop

    def _serve(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        _threads.add(self)
        try:
            asyncio.run(self._until_end(started))
        finally:
            _threads.discard(self)

    async def _until_end(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._at_close is not None:
            with suppress(Exception):  # nobody is left to tell
                await self._at_close()


_threads: Final[set[_Thread]] = set()


@atexit.register
def _end_all() -> None:
    """End the threads of this process before the interpreter ends, which would cut them off."""
    threads = [thread for thread in list(_threads) if thread.process == os.getpid()]
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join()


class _Relay(Generic[T]):
    """Hands the items of an async generator, one for each request, to a reader in another thread."""

    def __init__(self, gate: LoopGate, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._gate = gate
        self._make = make
        # What follows is used in the loop only.
        self._task: asyncio.Task[None]
        self._request: Future[Any] | None = None
        self._asked = asyncio.Event()
        gate.call_soon(self._begin)

    def next(self) -> "Future[Any]":
        """Return a future of the next item, or of `_END`."""
        request: Future[Any] = Future()
        self._gate.call_soon(self._ask, request)
        return request

    def close(self) -> None:
        """Close the generator, unless at its end."""
        with suppress(SessionError):  # the end of the loop has closed the generator
            self._gate.call_soon(self._close)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._pump())
        self._task.add_done_callback(self._ended)

    def _ask(self, request: "Future[Any]") -> None:
        self._request = request
        self._asked.set()
        if self._task.done():
            self._ended(self._task)

    def _close(self) -> None:
        self._task.cancel()

    async def _pump(self) -> None:
        async with aclosing(self._make()) as items:
            async for item in items:
                await self._asked.wait()
                self._asked.clear()
                self._answer(partial(_give, item))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Answer the open request, if any, with the end; `_ask` calls this for a request after the end."""
        if task.cancelled():
            if self._request is not None:
                self._request.cancel()
        elif (error := task.exception()) is not None:
            self._answer(lambda request: request.set_exception(error))
        else:
            self._answer(partial(_give, _END))

    def _answer(self, settle: "Callable[[Future[Any]], None]") -> None:
        request, self._request = self._request, None
        if request is not None and request.set_running_or_notify_cancel():
            settle(request)


def _give(item: object, request: "Future[Any]") -> None:
    request.set_result(item)


def _wait(future: "Future[T]") -> T:
    try:
        while True:
            try:
                return future.result(_LOOK_SECONDS)
            except TimeoutError:
                if future.done():  # the coroutine's own, or a result of this moment
                    return future.result()
    except CancelledError:
        pass  # by the end of the loop: the caller is here
    except BaseException:
        future.cancel()
        raise
    raise SessionError("the session was closed during the call")


async def _wait_async(future: "Future[T]") -> T:
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    raise SessionError("the session was closed during the call")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
