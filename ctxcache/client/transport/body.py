"""The request's body: notes when the request leaves, and refuses a connection that is no longer good."""

import asyncio
import select
from collections.abc import Callable
from typing import Final, Protocol, cast

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from .evidence import Evidence
from .head_timeouts import Reader

__all__ = ["TLS_LOOKS", "Body", "is_stale"]

_WRITE_BYTES: Final = 256 * 1024
TLS_LOOKS: Final = 4  # turns of the event loop; asyncio's TLS reads a closing record within two
_HUNG_UP: Final = (
    getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)
)  # POLLRDHUP is Linux's; elsewhere a close shows as readable


class Connection(Reader, Protocol):
    """The part of aiohttp's `ResponseHandler` that tells whether a connection is still good."""

    @property
    def should_close(self) -> bool:
        """Whether anything unasked was received, or the connection broke."""


class Writer(Protocol):
    """The part of aiohttp's `StreamWriter` that leads to the connection."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection's transport; None once the connection is lost."""

    @property
    def protocol(self) -> Connection:
        """The connection's protocol."""


class Body(Payload):
    """A JSON body, held back from a connection that is no longer good.

    Args:
        data: the JSON.
        evidence: `sent` or `stale` is set when the body is written.
        leaves: called right before the first byte leaves, with the connection that the head will come on.
    """

    def __init__(self, data: bytes, evidence: Evidence, leaves: Callable[[Reader], None]) -> None:
        super().__init__(data, content_type="application/json")
        self._data = data
        self._evidence = evidence
        self._leaves = leaves

    @property
    def autoclose(self) -> bool:
        """True: nothing has to be closed."""
        return True

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self._data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the JSON as text."""
        return self._data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the head and the body, if the connection is still good."""
        connection = cast(Writer, writer)
        protocol = connection.protocol
        for _ in range(TLS_LOOKS):
            stale = is_stale(connection.transport, protocol)
            if stale is not None:
                break
            await asyncio.sleep(0)
        if stale:
            self._evidence.stale = True
            raise ConnectionResetError("closed by the server while idle")
        self._evidence.sent = True
        self._leaves(protocol)
        for start in range(0, len(self._data), _WRITE_BYTES):
            await writer.write(self._data[start : start + _WRITE_BYTES])


def is_stale(transport: asyncio.Transport | None, protocol: Connection) -> bool | None:
    """Whether the peer closed the connection, or sent anything unasked; None: unknown yet, look again in a moment."""
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
