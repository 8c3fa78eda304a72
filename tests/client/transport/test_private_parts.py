"""The private and undocumented parts of aiohttp and asyncio that the transport relies on: each is still there.

A test here that fails after an update names the part that changed. `.github/DESIGN.md` says who needs it, and what goes
wrong without it.
"""

import asyncio
import ssl

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import Payload

from ctxcache.client.transport.body import TLS_LOOKS, is_stale
from ctxcache.client.transport.failures import FOREIGN
from ctxcache.client.transport.transport import CLOSE_TURNS

from ...hostile import CHAT, answer
from .certificate import PEM

ERROR = ConnectionResetError("x")


class Connected(BaseProtocol):
    """The protocol of a connection that is still there."""

    connected = True


@pytest.fixture
async def reader():
    """An aiohttp stream that received two pieces of a body."""
    loop = asyncio.get_running_loop()
    reader = aiohttp.StreamReader(Connected(loop), 2**16, loop=loop)
    reader.feed_data(b"data: ")
    reader.feed_data(b"[DONE]")
    return reader


async def test_stream_reader_buffer(reader):
    """`StreamReader._buffer` holds the unread bytes, also once an exception is set; `readany` then hides them."""
    reader.set_exception(ERROR)
    with pytest.raises(ConnectionResetError):
        await reader.readany()
    assert b"".join(reader._buffer) == b"data: [DONE]"


async def test_stream_reader_set_exception(reader):
    """`StreamReader.set_exception` wakes whoever waits in `readany`, and `exception` returns it."""
    await reader.readany()
    waiting = asyncio.ensure_future(reader.readany())
    await asyncio.sleep(0)
    reader.set_exception(ERROR)
    with pytest.raises(ConnectionResetError):
        await waiting
    assert reader.exception() is ERROR


async def test_stream_reader_ends(reader):
    """`StreamReader.is_eof` tells that the end has come, `at_eof` that everything before it was read as well."""
    assert (reader.is_eof(), reader.at_eof()) == (False, False)
    reader.feed_eof()
    assert (reader.is_eof(), reader.at_eof()) == (True, False)
    await reader.readany()
    assert reader.at_eof()


async def test_response_handler():
    """`ResponseHandler.set_exception` is raised where the head is waited for; `exception`, `connected` tell of it."""
    handler = ResponseHandler(asyncio.get_running_loop())
    assert handler.connected is False
    assert handler.should_close is False
    waiting = asyncio.ensure_future(handler.read())
    await asyncio.sleep(0)
    handler.set_exception(ERROR)
    with pytest.raises(ConnectionResetError):
        await waiting
    assert handler.exception() is ERROR
    assert handler.should_close is True


async def test_stream_writer():
    """`StreamWriter` leads to the connection: `transport` and `protocol`."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    assert writer.transport is None
    assert writer.protocol is protocol


async def test_payload_writes_itself(hostile, transport):
    """Aiohttp asks a `Payload` for its `size` and calls `write` with its `StreamWriter`."""
    seen = []

    class Noting(Payload):
        @property
        def size(self):
            return 2

        def decode(self, encoding="utf-8", errors="strict"):
            return "{}"

        async def write(self, writer):
            seen.append(type(writer))
            await writer.write(b"{}")

    hostile.plays([answer()])
    async with aiohttp.ClientSession() as http:
        await http.post(hostile.url, data=Noting(b"{}"))
    assert (seen, hostile.posts[0].body) == ([StreamWriter], b"{}")


async def test_connection_of_a_response(hostile):
    """`ClientResponse.connection` leads to the `ResponseHandler` while the body is unread, and is None afterwards."""
    hostile.plays([answer()[:-1], lambda _: asyncio.sleep(0)])
    async with aiohttp.ClientSession() as http:
        response = await http.post(hostile.url, json=CHAT)
        assert isinstance(response.connection.protocol, ResponseHandler)
        assert response.connection.protocol.connected
        hostile.connections[0].writer.write(answer()[-1:])
        await response.read()
        assert response.connection is None


def test_http_processing_error():
    """`HttpProcessingError` is the base of the parser's errors, and is translated."""
    assert HttpProcessingError in FOREIGN


async def turns_until(condition, most=50):
    """Count the turns of the event loop until the condition holds."""
    for turn in range(most):
        if condition():
            return turn
        await asyncio.sleep(0)
    raise AssertionError("never")


async def connect(server, **tls):
    """Connect as aiohttp does; return both ends."""
    loop = asyncio.get_running_loop()
    transport, handler = await loop.create_connection(lambda: ResponseHandler(loop), "127.0.0.1", server.port, **tls)
    await server.until(lambda: server.connections)
    return transport, handler, server.connections[0].writer


async def test_turns_until_a_close_is_heard(hostile):
    """The loop hears of a close that the kernel knows of within `CLOSE_TURNS` turns."""
    transport, _, _ = await connect(hostile)
    hostile.connections[0].shut_down()  # takes effect before this line ends
    assert await turns_until(transport.is_closing) <= CLOSE_TURNS


async def test_turns_until_tls_is_read(secure):
    """The loop's TLS reads the closing record of an idle connection in fewer than `TLS_LOOKS` turns."""
    trusted = ssl.create_default_context(cafile=PEM)
    transport, handler, theirs = await connect(secure, ssl=trusted)
    for _ in range(20):  # the session tickets that a server sends first
        await asyncio.sleep(0)
    assert is_stale(transport, handler) is False
    theirs.close()
    assert await turns_until(lambda: is_stale(transport, handler)) < TLS_LOOKS
    transport.close()
    await turns_until(lambda: theirs.transport.is_closing() and not handler.connected)
