"""The request's body, and what is known from its way out: whether it left, whether the connection was still good."""

import asyncio
import select
from typing import Final

from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import Payload

from .head_timeouts import HeadTimeouts

__all__ = ["Body", "Evidence"]

_WRITE_BYTES: Final = 256 * 1024
_TLS_LOOKS: Final = 4
_HUNG_UP: Final = (
    getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)
)  # POLLRDHUP is Linux's; elsewhere a close shows as readable


class Evidence:
    """What is known of one attempt while it is under way.

    Attributes:
        client_request_id: goes out as `X-Client-Request-Id`.
        sent: whether the request may have reached the server.
        framed: whether aiohttp has made an HTTP request of it (a mocked one makes none).
        stale: whether the connection was found closed before anything was written.
    """

    __slots__ = ("client_request_id", "framed", "sent", "stale")

    def __init__(self, client_request_id: str) -> None:
        self.client_request_id = client_request_id
        self.sent = False
        self.framed = False
        self.stale = False


class Body(Payload):
    """A request body that notes when it leaves, and does not leave on a connection the peer has done with."""

    _autoclose = True
    _value: bytes

    def __init__(self, data: bytes, attempt: Evidence, heads: HeadTimeouts, limit: float | None) -> None:
        super().__init__(data, content_type="application/json")
        self._attempt = attempt
        self._heads = heads
        self._limit = limit

    def __deepcopy__(self, _: object) -> "Body":
        """Return the body itself: aioresponses copies what a request is made of, and no event loop can be copied."""
        return self

    @property
    def size(self) -> int:
        """The body's length; whoever asks is framing the request."""
        self._attempt.framed = True
        return len(self._value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the JSON as text."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body, and with it the head, if the connection is still good."""
        stream: StreamWriter = writer  # type: ignore[assignment]  # the one aiohttp has
        protocol: ResponseHandler = stream.protocol  # type: ignore[assignment]
        attempt = self._attempt
        for _ in range(_TLS_LOOKS):
            stale = _is_stale(stream.transport, protocol)
            if stale is not None:
                break
            await asyncio.sleep(0)
        if stale:
            attempt.stale = True
            raise ConnectionResetError("closed by the server while idle")
        attempt.sent = True
        if self._limit is not None:
            self._heads.begin(attempt, protocol, self._limit)
        for start in range(0, len(self._value), _WRITE_BYTES):
            await writer.write(self._value[start : start + _WRITE_BYTES])


def _is_stale(transport: asyncio.Transport | None, protocol: ResponseHandler) -> bool | None:
    """Whether the peer has closed the connection, or sent what no request asked for; None: look again in a moment."""
    if transport is None or transport.is_closing() or protocol.should_close:
        return True
    socket = transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN | _HUNG_UP)
    ready = poll.poll(0)
    if not ready:
        return False
    if ready[0][1] & _HUNG_UP or transport.get_extra_info("sslcontext") is None:
        return True
    return None  # unread TLS records: session tickets, or a goodbye; the loop has to read them first
