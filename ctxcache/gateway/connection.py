"""The connections: aiohttp speaks HTTP, bytes that are not HTTP are answered in JSON too, and slow clients are cut.

One timer checks all connections, a few times within the shortest limit, so that a request costs no timer:

====================  ==================================================================================
state                 cut when
====================  ==================================================================================
waiting for a head    `head_seconds` have passed since the first byte of the head: 408
idle                  `idle_seconds` have passed since the last answer (aiohttp's own timer)
reading a body        `Bodies` has the limit: 408. Framing that outweighs the body, such as endless chunk
                      extensions, is a 400
answering             the client has taken less than 4 KiB of the waiting bytes for `write_seconds`: no reply
closing               the same
====================  ==================================================================================
"""

import asyncio
import logging
import sys
from contextlib import suppress
from typing import Final, cast

from aiohttp import StreamReader, web

from .app import App
from .limits import GatewayLimits
from .rules import refusals

__all__ = ["Connection", "Connections"]

_gateway_log: Final = logging.getLogger("ctxcache.gateway")
_log: Final = logging.getLogger("ctxcache.gateway.http")  # aiohttp's
_MAX_HEADERS: Final = 64  # of 8 KiB each
_FRAMING: Final = 512 * 1024  # bytes around a body or not yet parsed, and as many for each byte of the body:
_FRAMING_A_BYTE: Final = 8  # a chunk of one byte has six
_PROGRESS: Final = 4096  # bytes that a client takes within `write_seconds`
_CHECKS: Final = 4  # of each connection within the shortest limit
_IDLE_SECONDS: Final = 1.0  # for idle connections when the gateway ends
_SILENCE: Final = 10.0  # seconds between two log lines


def _demote(record: logging.LogRecord) -> bool:
    """Lower aiohttp's own errors to DEBUG: clients that break off (`App.handle` logs the gateway's failures)."""
    record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    return _log.isEnabledFor(logging.DEBUG)


_log.addFilter(_demote)


class Connections:
    """All open connections of a gateway that runs. To be made in the event loop.

    Args:
        app: answers the requests.
        limits: the limits of number and time.
    """

    def __init__(self, app: App, limits: GatewayLimits) -> None:
        # handler_cancellation: a client that leaves ends its answer at once, and so frees its context.
        self.server: Final = web.Server(self._handle, handler_cancellation=True)
        self.app: Final = app
        self.limits: Final = limits
        self.open: Final[set[Connection]] = set()
        self._later: Final = asyncio.get_running_loop().call_later
        self.time: Final = asyncio.get_running_loop().time
        self._pause: Final = min(limits.head_seconds, limits.idle_seconds, limits.write_seconds) / _CHECKS
        self._timer: asyncio.TimerHandle | None = None
        self._most: Final = min(limits.connections, _most_files() * 3 // 8)  # an engine may open a file for each
        self._silent_until = 0.0
        self._finishing = False
        self._all_closed: Final = asyncio.Event()

    def __call__(self) -> "Connection":
        """Make the protocol of a connection."""
        connection = Connection(self)
        self.open.add(connection)
        return connection

    def start(self) -> None:
        """Begin to cut slow clients."""
        self._timer = self._later(self._pause, self._cut_slow_clients)

    def turn_away(self) -> bytes | None:
        """Return what a connection beyond the bound is sent before the end; None if there is room."""
        if len(self.open) < self._most:
            return None
        if self.time() >= self._silent_until:
            self._silent_until = self.time() + _SILENCE
            _gateway_log.warning("turning connections away: %d are open", self._most)
        return self.app.refuse_early(refusals.no_connection(self._most))

    async def drain(self, seconds: float) -> None:
        """Close each connection when its answer is sent; return when none is left, or after so many seconds.

        Idle connections stay for a moment: a request may be on its way that a client cannot know to have been lost.
        """
        self._finishing = True
        end = self.time() + seconds
        while self.open and (left := end - self.time()) > 0:
            for connection in tuple(self.open):
                connection.finish(self.time() - _IDLE_SECONDS)
            self._all_closed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _IDLE_SECONDS / 4)):
                    await self._all_closed.wait()

    def forget(self, connection: "Connection") -> None:
        """Remove a connection that has ended."""
        self.open.discard(connection)
        if not self.open:
            self._all_closed.set()

    async def aclose(self, leave_seconds: float) -> None:
        """End every request, and wait a moment for those that do not end at once."""
        if self._timer is not None:
            self._timer.cancel()
        await self.server.shutdown(leave_seconds)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.begin(request.content)
        try:
            response = await self.app.handle(request)
        finally:
            connection.end()
        if self._finishing and not response.prepared:  # a head that was sent has promised to keep the connection
            response.force_close()
        return response

    def _cut_slow_clients(self) -> None:
        now = self.time()
        for connection in tuple(self.open):
            connection.cut_if_slow(now)
        self.start()


def _most_files() -> int:
    """Return how many files this process may open."""
    try:
        import resource
    except ImportError:  # not on Windows, whose limit is far away
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Connection(web.RequestHandler):
    """The protocol of one connection. The names of attributes are mangled: aiohttp's class has none of them."""

    __transport: asyncio.Transport | None = None
    __content: StreamReader | None = None  # of the last request
    __busy = False  # with that request
    __idle_since = 0.0
    __framed = 0  # bytes received since that request began
    __silent_since: float | None = None  # until the first bytes come; aiohttp's limit begins after the first request
    __head_since: float | None = None
    __held = False  # the client takes nothing more for now
    __waiting = 0  # bytes that the client had not taken at the last progress
    __waiting_since: float | None = None

    def __init__(self, connections: Connections) -> None:
        # Compressed bodies are refused, not unpacked: a small body stays small.
        super().__init__(
            connections.server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            auto_decompress=False,
            keepalive_timeout=connections.limits.idle_seconds,
            max_headers=_MAX_HEADERS,
            read_bufsize=64 * 1024,  # a quarter of the default: no more bytes, and chunks, wait for a handler
        )
        self.__connections: Final = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and begin to wait for a request."""
        self.__transport = cast(asyncio.Transport, transport)
        self.__silent_since = self.__idle_since = self.__connections.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection from those that are open."""
        self.__connections.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to aiohttp, which also calls this without any."""
        content = self.__content
        self.__silent_since = None
        if content is not None and not content.is_eof():
            self.__framed += len(data)
            if self.__framed > _FRAMING + _FRAMING_A_BYTE * content.total_bytes:
                content.set_exception(web.RequestPayloadError("more framing than body"))
                return
        elif data and not self.__busy and self.__head_since is None:
            self.__head_since = self.__connections.time()
        super().data_received(data)

    def pause_writing(self) -> None:
        """Hold the answer back: the client has much to take."""
        self.__held = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on with the answer: the client has taken most."""
        self.__held = False
        super().resume_writing()

    def begin(self, content: StreamReader) -> None:
        """Mark the connection as busy with a request."""
        self.__content = content
        self.__busy = True
        self.__framed = 0
        self.__head_since = None

    def end(self) -> None:
        """Mark the request as handled; the answer may still be on its way."""
        self.__busy = False
        self.__idle_since = self.__connections.time()

    def finish(self, before: float) -> None:
        """Close the connection if no request has come since a time of the event loop."""
        if not self.__busy and self.__idle_since <= before:
            self.force_close()

    def cut_if_slow(self, now: float) -> None:
        """Cut the connection if the client is too slow.

        Args:
            now: the time of the event loop.
        """
        limits, transport = self.__connections.limits, self.__transport
        if transport is None:
            return
        if self.__head_since is not None and now - self.__head_since >= limits.head_seconds:
            self.__head_since = None
            if not transport.is_closing():
                transport.write(self.__connections.app.refuse_early(refusals.slow_head(limits.head_seconds)))
            self.force_close()
        if self.__silent_since is not None and now - self.__silent_since >= limits.idle_seconds:
            self.force_close()
        waiting = transport.get_write_buffer_size()
        if not (waiting and (self.__held or transport.is_closing())):
            self.__waiting_since = None
        elif self.__waiting_since is None or self.__waiting - waiting >= _PROGRESS:
            self.__waiting, self.__waiting_since = waiting, now
        elif now - self.__waiting_since >= limits.write_seconds:
            transport.abort()
        else:
            self.__waiting = max(self.__waiting, waiting)  # the last writes before the engine was held up

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that aiohttp's parser refused; `App.handle` raises nothing that would come here."""
        return self.__connections.app.refuse_http(request)
