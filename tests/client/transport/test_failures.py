"""Every exception of the libraries below becomes one of ours."""

import asyncio
import inspect
import re
import socket
import ssl
from types import SimpleNamespace

import pytest
from aiohttp import client_exceptions, http_exceptions

from ctxcache import (
    APIConnectionError,
    CtxCacheError,
    Retry,
)

from ...descriptors import no_file_descriptors
from ...gateway.raw import PYTHON_PARSER
from ...hostile import CHAT, CLOSE, RESET, head
from ..calling import failure, read


async def test_bad_certificate(secure, session_for):
    """A certificate that cannot be verified is an `APIConnectionError` at once: trying again does not help."""
    error = await failure(session_for(secure).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert (error.hopeless, error.sent, error.attempts) == (True, False, 1)
    assert secure.posts == []


async def test_plain_server_behind_https(hostile, session_for):
    """A server that does not speak TLS is an `APIConnectionError` at once."""
    hostile.greets([b"HTTP/1.1 400 Bad\r\n\r\n"])
    error = await failure(session_for(SimpleNamespace(url=hostile.url.replace("http", "https"))).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert error.hopeless


async def test_a_process_without_file_descriptors(hostile, session_for):
    """A process that can open no socket is to blame itself, and `local` says so; an unreachable server is not."""
    session = session_for(hostile)
    with no_file_descriptors():
        error = await failure(session.chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert (error.local, error.sent, hostile.posts) == (True, False, [])
    assert "Too many open files" in error.message
    await hostile.__aexit__()
    assert not (await failure(session.chat.create(**CHAT))).local


def instance(kind):
    """Make an exception, of whatever signature."""
    info = SimpleNamespace(real_url="http://x/", method="POST", headers={}, url="http://x/")
    place = SimpleNamespace(host="x", port=1, ssl=True, is_ssl=True)
    os_error = OSError(111, "refused")
    for arguments in [
        (place, os_error),
        ("/s", place, os_error),
        (info, ()),
        ("x", "y", "z", 1),
        ("x",),
        ("x", "y", 1),
        (),
    ]:
        try:
            error = kind(*arguments)
            str(error), repr(error)
        except Exception:  # not this signature
            continue
        return error
    raise AssertionError(f"no way to make a {kind}")


FOREIGN = sorted(
    {
        kind
        for module in (client_exceptions, http_exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
        and kind.__module__.startswith("aiohttp")
        # About redirects that are not followed and web sockets that are not opened:
        and kind is not client_exceptions.WSMessageTypeError
    },
    key=lambda kind: kind.__name__,
)


STANDARD = [
    OSError(5, "x"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(110, "x"),
    TimeoutError(),
    EOFError(),
]


STANDARD += [
    asyncio.IncompleteReadError(b"", 1),
    ssl.SSLError(1, "x"),
    RuntimeError("x"),
    ValueError("x"),
    UnicodeError(),
]


def test_the_walk_finds_them():
    """The walk over aiohttp's exceptions finds them all."""
    names = {kind.__name__ for kind in FOREIGN}
    assert {"ClientError", "ServerDisconnectedError", "ClientPayloadError", "LineTooLong", "InvalidURL"} <= names
    assert len(names) > 35


@pytest.mark.parametrize("error", [*map(instance, FOREIGN), *STANDARD], ids=lambda error: type(error).__name__)
async def test_every_exception(session_for, error):
    """Whatever aiohttp raises while sending or reading becomes an error of ours, with nothing of aiohttp's on it."""

    async def fails(*_, **__):
        raise error

    async def post(*_, data, **__):
        await data.write(writer)
        return response

    content = SimpleNamespace(readany=fails, is_eof=bool, at_eof=bool, exception=lambda: None)
    response = SimpleNamespace(status=200, headers={}, content=content, closed=True, connection=None)
    protocol = SimpleNamespace(should_close=False, set_exception=lambda _: None)
    transport = SimpleNamespace(is_closing=bool, get_extra_info=lambda _: None)
    writer = SimpleNamespace(transport=transport, protocol=protocol, write=lambda _: asyncio.sleep(0))
    sending, reading = (
        session_for(http=SimpleNamespace(closed=False, post=function), retry=Retry(attempts=1))
        for function in (fails, post)
    )
    for call in (
        sending.chat.create(**CHAT),
        read(sending.chat.stream(**CHAT)),
        reading.chat.create(**CHAT),
        read(reading.chat.stream(**CHAT)),
    ):
        found = await failure(call)
        assert isinstance(found, CtxCacheError)
        assert not [kind for kind in FOREIGN if kind.__name__ in str(found)]
        while found is not None:  # the whole chain
            assert isinstance(found, CtxCacheError)
            found = found.__cause__ or found.__context__


def chunked(*data: bytes) -> list[bytes]:
    """An answer in chunks."""
    return [head("Content-Type: application/json", "Transfer-Encoding: chunked"), *data, CLOSE]


words_of_c = pytest.mark.skipif(PYTHON_PARSER, reason="aiohttp's parser in Python says it in other words")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (chunked(b'20\r\n{"id":'), "the answer was cut off"),
        ([head("Content-Length: 100"), b"{", CLOSE], "the answer was cut off"),
        ([head("Content-Length: 100"), b"{", RESET], "the answer was cut off"),
        ([head("Content-Encoding: gzip", "Content-Length: 5"), b"hello"], "cut off: the compressed data are damaged"),
        ([CLOSE], "the request was sent, but the connection broke: closed by the server"),
        ([RESET], "the request was sent, but the connection broke: Connection reset by peer"),
        pytest.param(
            chunked(b"zz\r\n"),
            "the answer is not HTTP: Invalid character in chunk size: b'zz'",
            marks=words_of_c,
        ),
        pytest.param([b"SSH-2.0\r\n", CLOSE], "the answer is not HTTP: Bad status line: ", marks=words_of_c),
    ],
)
async def test_what_is_told(hostile, session_for, script, told):
    """The text says what happened at the service, and names no class of a library below."""
    hostile.plays(script, script)
    session = session_for(retry=0)
    for call in (session.chat.create(**CHAT), read(session.chat.stream(**CHAT))):
        error = await failure(call)
        assert told in str(error)
        assert not re.search(r"\w+Error|Transfer|\b400\b", str(error))


async def test_no_connection_is_told_with_its_reason(session_for):
    """A refused connection names the host, the port and the reason, once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(
            session_for(SimpleNamespace(url=f"http://127.0.0.1:{port}/v1"), retry=0).chat.create(**CHAT)
        )
    assert str(error) == f"cannot connect: 127.0.0.1:{port}: Connection refused"
