"""Reading a response: the idle and total limits, and the single way to the end."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import aiohttp

from ...config import Secret, Timeouts
from ...errors import APITimeoutError, CtxCacheError, ProtocolError
from ...response_head import ResponseHead
from ..environment import Environment
from .failures import FOREIGN, translate

__all__ = ["Exchange", "Home"]

# After the end marker a server normally ends the body at once. A short wait for the end keeps the connection; a longer
# wait would hold up the caller, who has the whole answer already.
_DRAIN_SECONDS: Final = 0.25
_DRAIN_BYTES: Final = 64 * 1024
_LOOK_BYTES: Final = 64 * 1024


class Home(Protocol):
    """The part of the transport that an exchange needs."""

    key: Secret
    loop: asyncio.AbstractEventLoop
    environment: Environment

    def release(self, exchange: "Exchange", /) -> None:
        """Take back the exchange's slot in the pool."""


class Exchange:
    """An answer whose head has come, read by a single task.

    Attributes:
        status, headers: of the answer; `headers` is case-insensitive.
        head: the same, to be kept longer than the exchange.
        ids: the ids of the answer, without the key, should the server echo the key there.
        on_close: called once when the exchange ends, with the error passed to `fail`, or None.
        closed: whether the exchange has ended.
    """

    __slots__ = (
        "_beginning",
        "_content",
        "_failure",
        "_home",
        "_response",
        "_timeouts",
        "_timer",
        "_total_at",
        "_waiting_since",
        "closed",
        "head",
        "headers",
        "ids",
        "on_close",
        "status",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, timeouts: Timeouts, client_request_id: str, home: Home
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = (headers := response.headers)
        self.head = ResponseHead(self.status, headers, home.key)
        self.ids: dict[str, str | None] = {
            "request_id": headers.get("X-Request-Id"),
            "log_id": headers.get("X-Tt-Logid"),
            "client_request_id": client_request_id,
        }
        self.on_close: Callable[[CtxCacheError | None], None] | None = None
        self.closed = False
        self._home = home
        self._response: aiohttp.ClientResponse | None = response  # until the end
        self._content = response.content
        self._timeouts = timeouts
        self._beginning = b""
        self._failure: CtxCacheError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._total_at: float | None = None
        if home.key.is_in(*self.ids.values()):
            self.ids = home.key.redact(self.ids)

    @property
    def content_type(self) -> str:
        """The media type the body is declared as, in lower case and without parameters; "" if none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    # --- reading

    async def read(self) -> bytes:
        """Return the next bytes as soon as any come; b"" at the end of the body.

        Raises:
            APIConnectionError: the body was cut off.
            APITimeoutError: `idle` passed since `wait_begins`, or `total` since the call began.
            SessionError: the session was closed.
        """
        if self._failure is not None:
            raise self._failure
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            return beginning
        try:
            return await self._content.readany()
        except CtxCacheError:
            raise  # our own, from `fail`
        except FOREIGN as error:
            failure = translate(error, self._timeouts, self._home.key, sent=True)
        # aiohttp's StreamReader hides the bytes received before the failure; the end marker may be among them.
        rescued = b"".join(getattr(self._content, "_buffer", ()))
        if rescued and self._failure is None:
            self._failure = failure
            return rescued
        raise failure

    async def look(self) -> bytes:
        """Return the beginning of the body, b"" for an empty body; `read` returns the same bytes again.

        Raises:
            APIConnectionError, APITimeoutError, SessionError: as `read`.
        """
        self.wait_begins()
        try:
            beginning = data = await self.read()
            while data and len(beginning) < _LOOK_BYTES and not beginning.strip():  # white space alone shows nothing
                data = await self.read()
                beginning += data
        except BaseException:
            self.close()
            raise
        self.wait_ends()
        self._beginning = beginning
        return beginning

    async def read_all(self, most: int) -> bytes:
        """Read the body to the end and give the connection back.

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
        """Whether the whole body was read, the end included."""
        return self._content.at_eof()

    # --- the one end

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
        """End the exchange. The connection is kept if the body was read to the end, else closed."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The response goes, and with it all unread bytes: the stream may be held for long.
        response, self._response, self._content = self._response, None, aiohttp.EMPTY_PAYLOAD
        self._beginning = b""
        if response is not None and not response.closed:  # else the end of the body has given the connection back
            response.close()
        self._home.release(self)
        if self.on_close is not None:
            on_close, self.on_close = self.on_close, None
            on_close(self._failure)

    def fail(self, error: CtxCacheError) -> None:
        """End the exchange from outside: a reader, waiting or yet to come, gets `error`."""
        if not self.closed:
            self._failure = error
            self._content.set_exception(error)
            self.close()

    def abandon(self) -> None:
        """End the exchange from any thread, in a moment: the reader was garbage-collected."""
        if not self.closed and not self._home.loop.is_closed():
            with suppress(RuntimeError):  # the loop was closed meanwhile, in another thread
                self._home.loop.call_soon_threadsafe(self.close)

    # --- time limits: one timer an exchange, moved lazily, so that a chunk costs no timer

    def wait_begins(self) -> None:
        """Note that the caller now waits for data; `idle` is counted from here until `wait_ends`."""
        self._waiting_since = self._home.environment.clock()
        if self._timer is None:
            self._watch()

    def wait_ends(self) -> None:
        """Note that the awaited data has come."""
        self._waiting_since = None

    def limit_total(self, at: float) -> None:
        """Fail the exchange at this time of the environment's clock, if still open."""
        self._total_at = at
        self._watch()  # from now on, also while nobody reads

    def _watch(self) -> None:
        now = self._home.environment.clock()
        if (failure := self._overdue(now)) is not None:
            self.fail(failure)
            return
        self._wake_if_broken()
        remaining = self._home.environment.look
        if self._timeouts.idle is not None:
            since = now if self._waiting_since is None else self._waiting_since
            remaining = min(remaining, since + self._timeouts.idle - now)
        if self._total_at is not None:
            remaining = min(remaining, self._total_at - now)
        self._timer = self._home.loop.call_later(remaining, self._watch)

    def _overdue(self, now: float) -> CtxCacheError | None:
        idle, since = self._timeouts.idle, self._waiting_since
        if self._total_at is not None and now >= self._total_at:
            return APITimeoutError.of("total", self._timeouts.total, sent=True)
        if idle is not None and since is not None and now >= since + idle:
            return APITimeoutError.of("idle", idle, sent=True)
        return None

    def _wake_if_broken(self) -> None:
        """Wake the reader of a lost connection: aiohttp does not, where the framing of a chunk is broken."""
        connection = self._response.connection if self._response is not None else None
        protocol = connection.protocol if connection is not None else None
        if protocol is None or protocol.connected or self._content.is_eof() or self._content.exception() is not None:
            return
        self._content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection is gone"))
