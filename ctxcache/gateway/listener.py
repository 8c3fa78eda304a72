"""The listening sockets, and every connection accepted from them.

The listener accepts connections itself, not by `loop.create_server`: a server that closes drops the connections that
the event loop has accepted and not yet handed to a protocol, and asyncio has no other way to stop accepting first.
`loop.remove_reader` stops at once, with no connection between two hands. Windows' default loop has no readers; there a
task accepts, and cancelling that task closes a half-accepted connection.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Self
from weakref import WeakSet

__all__ = ["Listener", "listen"]

_log: Final = logging.getLogger("ctxcache.gateway")
_BACKLOG: Final = 1024
_BURST: Final = 32  # accepted in a row before other tasks run
_RETRY_SECONDS: Final = 1.0  # after an accept that failed, as when file descriptors ran out
_UNAVAILABLE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # e.g. `::` on a machine without IPv6

_UNREAD: Final = 64 * 1024

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
TurnAway = Callable[[], bytes | None]


def _let_in() -> None:
    """Turn no connection away."""


class Listener:
    """Accepts connections until `aclose`. To be made in the event loop.

    Args:
        sockets: listening sockets, owned by the listener from now on.
        protocols: makes the protocol of each connection. `connection_lost` is called for each, even if the connection
            ended before `connection_made`.
        turn_away: asked for each connection: None lets the connection in; bytes are sent before the end.
        retry_seconds: the pause after an accept that failed.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        protocols: ProtocolFactory,
        turn_away: TurnAway = _let_in,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._sockets: Final = sockets
        self._protocols: Final = protocols
        self._turn_away: Final = turn_away
        self._retry_seconds: Final = retry_seconds
        self._transports: Final[WeakSet[asyncio.Transport]] = WeakSet()  # the event loop holds the open ones
        self._tasks: Final[set[asyncio.Task[None]]] = set()  # that accept, and that hand over
        self._accepting: Final[list[asyncio.Task[None]]] = []
        self._stopped = self._closed = self._refusing = False
        for listening in sockets:
            try:
                self._loop.add_reader(listening, self._accept_waiting, listening)
            except NotImplementedError:
                self._accepting.append(self._start(self._accept_each(listening)))

    @classmethod
    async def open(cls, host: str, port: int, protocols: ProtocolFactory, turn_away: TurnAway = _let_in) -> Self:
        """Listen on every address of `host` ("" is a wildcard for IPv4 and IPv6).

        Raises:
            OSError: no address can be listened on.
            ValueError: the host cannot be encoded.
        """
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets = listen(dict.fromkeys((family, address) for family, _, _, _, address in addresses))
        return cls(sockets, protocols, turn_away)

    @property
    def port(self) -> int:
        """The port; with port 0 on a wildcard, where the families have different ports, the port of IPv4."""
        port: int = min(self._sockets, key=lambda listening: listening.family).getsockname()[1]
        return port

    def refuse(self, refusing: bool) -> None:
        """Refuse connections as a port without a listener does, and cut those that are open; or accept again.

        Meanwhile the port stays taken. An event loop that cannot watch sockets resets connections after the accept.
        """
        if self._stopped or refusing == self._refusing:
            return
        self._refusing = refusing
        for number, listening in enumerate(self._sockets):
            if self._accepting:
                continue
            if not refusing:
                listening.listen(_BACKLOG)
                self._watch(listening)
                continue
            self._loop.remove_reader(listening)
            address = listening.getsockname()
            listening.close()
            self._sockets[number] = _bind(listening.family, address)
        if refusing:
            self._cut()

    def _cut(self) -> None:
        for transport in tuple(self._transports):
            transport.abort()  # close() would wait until the client has read everything

    async def stop(self) -> None:
        """Stop listening; connections that were accepted go on."""
        if self._stopped:
            return
        self._stopped = True
        for listening in self._sockets:
            with contextlib.suppress(NotImplementedError):
                self._loop.remove_reader(listening)
        for task in self._accepting:
            task.cancel()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for listening in self._sockets:
                if not self._closed:
                    self._accept_rest(listening)
                listening.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept_rest(self, listening: socket.socket) -> None:
        """Accept what waits: to clients these are connections like any other, and may carry a request already."""
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                accepted.setblocking(False)
                self._take(accepted)

    async def aclose(self) -> None:
        """Stop listening and cut every connection. No client is waited for, no accepted connection is left open."""
        self._closed = True
        try:
            await self.stop()
        finally:
            self._cut()

    def _accept_waiting(self, listening: socket.socket) -> None:
        """Accept the waiting connections, called by an event loop that watches the socket."""
        for _ in range(_BURST):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the client left before
            except OSError as error:
                self._say_failed(error)
                self._loop.remove_reader(listening)
                self._loop.call_later(self._retry_seconds, self._watch, listening)
                return
            accepted.setblocking(False)
            self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        """Hand a connection over, or turn it away."""
        if self._refusing:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the close is a reset
            accepted.close()
            return
        refusal = self._turn_away()
        if refusal is None:
            try:
                protocol = self._protocols()
            except OSError as error:
                self._give_up(accepted, error)
            else:
                self._start(self._hand_over(accepted, protocol))
            return
        with contextlib.suppress(OSError):
            accepted.send(refusal)
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(_UNREAD)  # a close with bytes unread would take the refusal back
        accepted.close()

    def _watch(self, listening: socket.socket) -> None:
        if listening in self._sockets and not (self._stopped or self._refusing):
            self._loop.add_reader(listening, self._accept_waiting, listening)

    async def _accept_each(self, listening: socket.socket) -> None:
        """Accept connections one by one, for an event loop that cannot watch the socket."""
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listening)
            except OSError as error:
                self._say_failed(error)
                await asyncio.sleep(self._retry_seconds)
            else:
                self._take(accepted)

    def _say_failed(self, error: OSError) -> None:
        _log.error("cannot accept connections: %s; trying again in %g s", error, self._retry_seconds)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _hand_over(self, accepted: socket.socket, protocol: asyncio.BaseProtocol) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError as error:
            self._give_up(accepted, error)
            protocol.connection_lost(error)
            return
        if self._closed or self._refusing:
            transport.abort()
        else:
            self._transports.add(transport)

    def _give_up(self, accepted: socket.socket, error: OSError) -> None:
        _log.debug("a connection ended before it was handed over: %s", error)
        accepted.close()


def listen(addresses: Iterable[tuple[int, Any]]) -> list[socket.socket]:
    """Listen on each of some addresses (family, and address of that family), except those the machine lacks.

    Raises:
        OSError: the machine lacks every address, or cannot listen on one that exists. No socket is left open.
    """
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sockets.append(_listen_on(family, address))
            except OSError as error:
                if error.errno not in _UNAVAILABLE:
                    raise
                unavailable = error
        if not sockets and unavailable is not None:
            raise unavailable
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _listen_on(family: int, address: Any) -> socket.socket:
    listening = _bind(family, address)
    try:
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _bind(family: int, address: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Windows means something else by the option.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
