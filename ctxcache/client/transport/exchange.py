"""An answer under way: reading it, its time limits, its one end."""

import asyncio
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from ...config import Secret, Timeouts
from ...errors import APITimeoutError, CtxCacheError, ProtocolError
from .failures import FOREIGN, translate

__all__ = ["Exchange"]

# After the end marker a server normally ends the body at once. Waiting a little for that keeps the connection; waiting
# longer would hold up the caller, who has the whole answer already.
_DRAIN_SECONDS: Final = 0.25
_DRAIN_BYTES: Final = 64 * 1024
_LOOK_SECONDS: Final = 1.0


class Exchange:
    """An answer whose head has come. One task reads it.

    Attributes:
        status, headers: of the answer; `headers` is case-insensitive.
        on_close: called once when the exchange ends, with the error that ended it from outside, if one did.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        timeouts: Timeouts,
        key: Secret,
        release: Callable[["Exchange"], None],
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.on_close: Callable[[CtxCacheError | None], None] | None = None
        self.closed = False
        self._key = key
        self._release = release
        self._response = response
        self._content = response.content
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._failure: CtxCacheError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._total_at: float | None = None
        self._owner: weakref.ref[Any] | None = None

    @property
    def content_type(self) -> str:
        """What the body is said to be, in lower case and without parameters; "" where nothing is said."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """Return the next bytes as they come; b"" at the end of the body.

        Raises:
            APIConnectionError: the body was cut off.
            APITimeoutError: `idle` passed since `wait_begins`, or `total` since the call began.
            SessionError: the session was closed.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return await self._content.readany()
        except CtxCacheError:
            raise  # our own, put there by `fail`
        except FOREIGN as error:
            failure = translate(error, self._timeouts, self._key, sent=True)
        # aiohttp drops what it had received before the failure; the end marker may be in it.
        rescued = b"".join(getattr(self._content, "_buffer", ()))
        if rescued and self._failure is None:
            self._failure = failure
            return rescued
        raise failure

    async def read_all(self, most: int) -> bytes:
        """Read the body to its end and give the connection back.

        Raises:
            ProtocolError: for a body of more than `most` bytes.
            APIConnectionError, APITimeoutError, SessionError: as `read`.
        """
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                if not self._content.is_eof():
                    self.wait_begins()
                data = await self.read()
                parts.append(data)
                size += len(data)
                if size > most:
                    raise ProtocolError(f"the server sent a body of more than Limits.body_bytes = {most:,} bytes")
                if not data or self.at_end:
                    return b"".join(parts)
        finally:
            self.close()

    @property
    def at_end(self) -> bool:
        """Whether all of the body was read, and its end has come."""
        return self._content.at_eof()

    async def finish(self) -> None:
        """End a stream whose end marker has come: wait a moment for the end of the body, to keep the connection."""
        try:
            if not self.at_end:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    drained = 0
                    while drained <= _DRAIN_BYTES and (data := await self._content.readany()):
                        drained += len(data)
        except (*FOREIGN, CtxCacheError):
            pass  # the answer is whole; only the connection is lost
        finally:
            self.close()

    def close(self) -> None:
        """End the exchange. The connection is kept if the body was read to its end, else closed."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._response.closed:  # else the end of the body has given the connection back
            self._response.close()
        self._owner = None
        self._release(self)
        if self.on_close is not None:
            on_close, self.on_close = self.on_close, None
            on_close(self._failure)

    def fail(self, error: CtxCacheError) -> None:
        """End the exchange from outside: a reader, waiting or yet to come, gets `error`."""
        if not self.closed:
            self._failure = error
            self._content.set_exception(error)
            self.close()

    # --- time limits: one timer an exchange, moved lazily, so that a chunk costs no timer

    def wait_begins(self) -> None:
        """Say that the caller now waits for data; `idle` is counted from here until `wait_ends`."""
        self._waiting_since = self._loop.time()
        if self._timer is None:
            self._watch()

    def wait_ends(self) -> None:
        """Say that the data waited for has come."""
        self._waiting_since = None

    def limit_total(self, at: float) -> None:
        """Fail the exchange at this time of the loop's clock, if it is still open."""
        self._total_at = at
        self._watch()  # from now on, also while nobody reads

    def _watch(self) -> None:
        now = self._loop.time()
        if (failure := self._overdue(now)) is not None:
            self.fail(failure)
            return
        self._tell_if_broken()
        dues = [now + _LOOK_SECONDS]
        if self._timeouts.idle is not None:
            dues.append((now if self._waiting_since is None else self._waiting_since) + self._timeouts.idle)
        if self._total_at is not None:
            dues.append(self._total_at)
        self._timer = self._loop.call_at(min(dues), self._watch)

    def _overdue(self, now: float) -> CtxCacheError | None:
        idle, since = self._timeouts.idle, self._waiting_since
        if self._total_at is not None and now >= self._total_at:
            return APITimeoutError.of("total", self._timeouts.total, sent=True)
        if idle is not None and since is not None and now >= since + idle:
            return APITimeoutError.of("idle", idle, sent=True)
        return None

    def _tell_if_broken(self) -> None:
        """Wake the reader of a connection that is gone: aiohttp does not, where the framing of a chunk is broken."""
        protocol = self._response.connection.protocol if self._response.connection else None
        if protocol is None or protocol.connected or self._content.is_eof() or self._content.exception() is not None:
            return
        self._content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection is gone"))

    def close_with(self, owner: object) -> None:
        """Close the exchange when `owner` is garbage-collected, in whichever thread that happens."""
        self._owner = weakref.ref(owner, self._abandoned)

    def _abandoned(self, _: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)
