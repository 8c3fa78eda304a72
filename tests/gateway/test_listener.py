"""The listening sockets and their connections, with plain protocols on real sockets."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache.gateway.listener import Listener, listen

from ..descriptors import no_file_descriptors
from .loops import NoReaders

LOCAL = (socket.AF_INET, ("127.0.0.1", 0))
ELSEWHERE = (socket.AF_INET, ("203.0.113.1", 0))  # reserved for documentation: no machine has this address


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop run until the condition holds; fail if it never does."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)


class Recorded(asyncio.Protocol):
    """A protocol that records the life of a connection."""

    def __init__(self, made: Callable[[asyncio.Transport], None] = lambda _: None) -> None:
        self.made = made
        self.connected, self.lost = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        """The connection is here."""
        self.connected.set()
        self.made(transport)

    def connection_lost(self, _: Exception | None) -> None:
        """The connection has ended."""
        self.lost.set()


class Protocols:
    """Makes and keeps `Recorded` protocols."""

    def __init__(self, made: Callable[[asyncio.Transport], None] = lambda _: None) -> None:
        self.made = made
        self.all: list[Recorded] = []

    def __call__(self) -> Recorded:
        """Make one."""
        self.all.append(Recorded(self.made))
        return self.all[-1]

    async def come(self, count: int = 1) -> None:
        """Wait until so many protocols are connected."""
        await until(lambda: len(self.all) >= count)
        for protocol in self.all:
            await protocol.connected.wait()


@pytest.fixture(autouse=True)
async def _no_complaints() -> AsyncIterator[None]:
    """No test of this file may give the event loop a reason to complain."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    assert complaints == []


def connect(listener: Listener) -> socket.socket:
    """Connect at once: the kernel accepts."""
    return socket.create_connection(("127.0.0.1", listener.port), timeout=5)


def read_to_end(client: socket.socket) -> None:
    """Read until the connection has ended; time out if it never does."""
    with client, contextlib.suppress(ConnectionError):
        while client.recv(2**20):
            pass


async def test_connections_are_handed_to_protocols() -> None:
    """Each connection gets a protocol, also of more connections than are accepted in a row."""
    protocols = Protocols()
    listener = await Listener.open("127.0.0.1", 0, protocols)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(listener))
        async with asyncio.timeout(5):
            await protocols.come(300)
            for protocol in protocols.all:
                await protocol.connected.wait()
        await listener.aclose()
        for protocol in protocols.all:
            await protocol.lost.wait()


async def test_a_stop_accepts_what_waits() -> None:
    """Connections that the kernel has accepted when the listener stops get a protocol; no request of theirs is lost."""
    protocols = Protocols()
    listener = await Listener.open("127.0.0.1", 0, protocols)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(listener))
        await listener.stop()
        assert len(protocols.all) == 40
        assert all(protocol.connected.is_set() for protocol in protocols.all)
        await listener.aclose()


@pytest.mark.parametrize("turns", range(8))
async def test_closing_right_after_a_client_connected_leaves_nothing_open(turns: int) -> None:
    """A connection ends with the listener, however far the event loop has come."""
    before = asyncio.all_tasks()
    protocols = Protocols()
    sockets = listen([LOCAL])
    watched = sockets[0].fileno()
    listener = Listener(sockets, protocols)
    for _ in range(5):  # the listener waits for connections
        await asyncio.sleep(0)
    client = connect(listener)
    for _ in range(turns):
        await asyncio.sleep(0)
    await listener.aclose()
    assert not asyncio.get_running_loop().remove_reader(watched), "the event loop watches no closed socket"
    for protocol in protocols.all:
        await protocol.lost.wait()
    read_to_end(client)
    assert asyncio.all_tasks() == before


async def test_closing_while_clients_connect_leaves_nothing_open() -> None:
    """Clients may connect until the last moment."""
    listener = await Listener.open("127.0.0.1", 0, Protocols())
    closing = asyncio.create_task(listener.aclose())
    clients = []
    while not closing.done():
        with contextlib.suppress(ConnectionError):
            clients.append(connect(listener))
        await asyncio.sleep(0)
    await closing
    await asyncio.sleep(0)
    for client in clients:
        read_to_end(client)


async def test_closing_does_not_wait_for_clients_that_do_not_read() -> None:
    """A connection that the protocol has closed, with bytes left unread, is cut as well."""

    def send_and_close(transport: asyncio.Transport) -> None:
        transport.write(b"x" * 50_000_000)
        transport.close()

    protocols = Protocols(send_and_close)
    listener = await Listener.open("127.0.0.1", 0, protocols)
    client = connect(listener)
    async with asyncio.timeout(5):
        await protocols.come()
        (protocol,) = protocols.all
        for _ in range(5):  # handed over altogether
            await asyncio.sleep(0)
        assert not protocol.lost.is_set()
        await listener.aclose()
        await protocol.lost.wait()
    read_to_end(client)


async def test_a_cancelled_close_has_closed_everything() -> None:
    """A cancelled close still stops listening and cuts the connections."""
    protocols = Protocols()
    listener = await Listener.open("127.0.0.1", 0, protocols)
    port, client = listener.port, connect(listener)
    async with asyncio.timeout(5):
        await protocols.come()
        await protocols.all[0].connected.wait()
        await asyncio.sleep(0)
        closing = asyncio.create_task(listener.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await protocols.all[0].lost.wait()
    read_to_end(client)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_an_event_loop_that_cannot_watch_sockets_will_do() -> None:
    """Such a loop accepts and closes connections as well."""

    async def serve() -> None:
        before = asyncio.all_tasks()
        protocols = Protocols()
        listener = await Listener.open("127.0.0.1", 0, protocols)
        clients = [connect(listener) for _ in range(10)]
        async with asyncio.timeout(5):
            await protocols.come(10)
        await listener.aclose()
        for client, protocol in zip(clients, protocols.all, strict=True):
            read_to_end(client)
            await protocol.lost.wait()
        assert asyncio.all_tasks() == before

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        runner.run(serve())


async def accept_without_file_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """Connect to a listener that cannot accept; free file descriptors, and see the connection accepted."""
    protocols = Protocols()
    sockets = listen([LOCAL])
    client = socket.create_connection(sockets[0].getsockname())
    listener = Listener(sockets, protocols, retry_seconds=0)
    async with asyncio.timeout(5):
        with no_file_descriptors():
            await until(lambda: caplog.messages)
        assert protocols.all == []
        await protocols.come()
        await protocols.all[0].connected.wait()
    await listener.aclose()
    read_to_end(client)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert "cannot accept connections: [Errno 24] Too many open files; trying again in 0 s" in caplog.messages


async def test_without_free_file_descriptors_it_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    """Without free file descriptors an error is logged, and after a pause the connection is accepted."""
    await accept_without_file_descriptors(caplog)


def test_without_free_file_descriptors_it_tries_again_on_any_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The same happens if the event loop cannot watch sockets."""
    with asyncio.Runner(loop_factory=NoReaders) as runner:
        runner.run(accept_without_file_descriptors(caplog))


async def test_a_failed_accept_is_logged_once_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    """A pause has a single log line, however many clients wait."""
    sockets = listen([LOCAL])
    client = socket.create_connection(sockets[0].getsockname())
    listener = Listener(sockets, Protocols(), retry_seconds=3600)
    with no_file_descriptors():
        await until(lambda: caplog.messages)
        for _ in range(20):
            await asyncio.sleep(0)
        await listener.aclose()
    read_to_end(client)
    assert len(caplog.messages) == 1


async def test_closing_while_it_waits_to_try_again(caplog: pytest.LogCaptureFixture) -> None:
    """A listener closed during the pause stays closed."""
    protocols = Protocols()
    sockets = listen([LOCAL])
    client = socket.create_connection(sockets[0].getsockname())
    listener = Listener(sockets, protocols, retry_seconds=0)
    with no_file_descriptors():
        async with asyncio.timeout(5):
            await until(lambda: caplog.messages)
        await listener.aclose()
    for _ in range(5):
        await asyncio.sleep(0)
    read_to_end(client)
    assert protocols.all == []


async def test_a_client_that_left_before_it_was_accepted_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """A client gone before the accept, an error on some systems, is not logged; the next client is accepted."""

    class Flaky(socket.socket):
        failures = 2

        def accept(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")
            return super().accept()

    (made,) = listen([LOCAL])
    sockets: list[socket.socket] = [Flaky(fileno=made.detach())]
    protocols = Protocols()
    listener = Listener(sockets, protocols)
    client = connect(listener)
    async with asyncio.timeout(5):
        await protocols.come()
    await listener.aclose()
    read_to_end(client)
    assert caplog.records == []


async def test_a_connection_without_a_protocol_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """If the hand-over fails, the client sees the end, and the next client is served."""
    caplog.set_level(logging.DEBUG)
    failures = [OSError("no protocol")]
    protocols = Protocols()

    def make() -> Recorded:
        if failures:
            raise failures.pop()
        return protocols()

    listener = await Listener.open("127.0.0.1", 0, make)
    clients = [connect(listener), connect(listener)]
    async with asyncio.timeout(5):
        await protocols.come()
    read_to_end(clients[0])
    await listener.aclose()
    read_to_end(clients[1])
    assert "a connection ended before it was handed over: no protocol" in caplog.messages


async def test_a_wildcard_is_every_address_of_the_machine() -> None:
    """The port of a wildcard is the port of IPv4."""
    protocols = Protocols()
    listener = await Listener.open("", 0, protocols)
    client = connect(listener)
    async with asyncio.timeout(5):
        await protocols.come()
    await listener.aclose()
    read_to_end(client)


def test_addresses_that_the_machine_does_not_have_are_left_out() -> None:
    """Addresses that the machine lacks are left out; without any other, listening fails."""
    (listening,) = listen([ELSEWHERE, LOCAL])
    assert listening.getsockname()[0] == "127.0.0.1"
    listening.close()
    with pytest.raises(OSError, match="assign") as refused:
        listen([ELSEWHERE])
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_a_port_in_use_leaves_no_socket_open() -> None:
    """Sockets opened before the error are closed."""
    with socket.create_server(("127.0.0.1", 0)) as used, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()
        other.close()
        with pytest.raises(OSError, match="in use") as refused:
            listen([(socket.AF_INET, free), (socket.AF_INET, used.getsockname())])
        assert refused.value.errno == errno.EADDRINUSE
        (listening,) = listen([(socket.AF_INET, free)])
        listening.close()


async def test_refusing_and_accepting_again() -> None:
    """A listener that refuses keeps its port, cuts what is open, and accepts again when told to."""
    protocols = Protocols()
    listener = Listener(listen([LOCAL]), protocols)
    port = listener.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await protocols.come()
    for _ in range(2):
        listener.refuse(True)
    await asyncio.wait_for(protocols.all[0].lost.wait(), 5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert listener.port == port
    listener.refuse(False)
    _, again = await asyncio.open_connection("127.0.0.1", port)
    await protocols.come(2)
    await listener.aclose()
    listener.refuse(True)
    for opened in (writer, again):
        opened.close()


def test_refusing_on_any_loop() -> None:
    """An event loop that cannot watch sockets resets each connection after the accept, until told otherwise."""

    async def serve() -> None:
        protocols = Protocols()
        listener = Listener(listen([LOCAL]), protocols)
        listener.refuse(True)
        with contextlib.closing(connect(listener)) as client, pytest.raises(ConnectionResetError):
            await asyncio.wait_for(asyncio.to_thread(client.recv, 1), 5)
        assert protocols.all == []
        listener.refuse(False)
        with contextlib.closing(connect(listener)):
            await protocols.come()
            await listener.aclose()

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        runner.run(serve())
