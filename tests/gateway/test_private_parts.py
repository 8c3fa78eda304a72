"""The undocumented parts of aiohttp that the gateway uses: a test fails by name when one vanishes."""

import inspect

import pytest
from aiohttp import StreamReader, web
from aiohttp.streams import EmptyStreamReader

from ctxcache.gateway.connection import Connection


def test_request_handler_is_made_by_hand() -> None:
    """`web.RequestHandler(manager, loop=, logger=, …)` can be made without `web.Server`."""
    parameters = inspect.signature(web.RequestHandler.__init__).parameters
    named = {"manager", "loop", "logger", "access_log", "auto_decompress"}
    assert named | {"keepalive_timeout", "max_headers", "read_bufsize"} <= parameters.keys()
    assert list(parameters)[1] == "manager"


def test_request_handler_answers_bad_http_by_handle_error() -> None:
    """`web.RequestHandler.handle_error` exists and takes the same arguments as the gateway's override."""
    theirs, ours = (inspect.signature(kind.handle_error).parameters for kind in (web.RequestHandler, Connection))
    assert {name: parameter.default for name, parameter in theirs.items()} == {
        name: parameter.default for name, parameter in ours.items()
    }


def test_request_handler_has_no_attribute_of_ours() -> None:
    """`Connection` overrides asyncio's methods and `handle_error`, and shares no other name with aiohttp's class."""
    ours = {name for name in vars(Connection) if not name.startswith("__")}
    assert ours & set(dir(web.RequestHandler)) == {
        "connection_lost",
        "connection_made",
        "data_received",
        "handle_error",
        "pause_writing",
        "resume_writing",
    }


@pytest.mark.parametrize("method", ["close", "force_close"])
def test_request_handler_can_be_closed(method: str) -> None:
    """`web.RequestHandler.close` closes after the answer under way, `force_close` at once."""
    assert inspect.signature(getattr(web.RequestHandler, method)).parameters.keys() == {"self"}


def test_request_leads_to_its_connection() -> None:
    """`web.BaseRequest.protocol` exists; a request tells its connection when it begins and ends."""
    assert isinstance(inspect.getattr_static(web.BaseRequest, "protocol"), property)


@pytest.mark.parametrize("kind", [StreamReader, EmptyStreamReader])
def test_stream_reader_tells_its_bytes_and_ends_with_an_error(kind: type) -> None:
    """`StreamReader.total_bytes`, `is_eof` and `set_exception`: framing that outweighs a body is refused."""
    assert {"is_eof", "set_exception"} <= set(dir(kind))
    assert "total_bytes" in inspect.getsource(kind.__init__)


def test_request_has_its_writer() -> None:
    """`web.BaseRequest.writer` exists; `100 Continue` is sent with it."""
    assert isinstance(inspect.getattr_static(web.BaseRequest, "writer"), property)


def test_server_cancels_handlers() -> None:
    """`web.Server` takes `handler_cancellation`, documented for applications only."""
    assert "handler_cancellation" in inspect.signature(web.Server.__init__).parameters
