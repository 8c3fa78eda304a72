"""The undocumented parts of aiohttp that the gateway uses: a test fails by name when one vanishes."""

import inspect

from aiohttp import web

from ctxcache.gateway.connection import Connection


def test_request_handler_is_made_by_hand() -> None:
    """`web.RequestHandler(manager, loop=, logger=, access_log=, auto_decompress=)` can be made without `web.Server`."""
    parameters = inspect.signature(web.RequestHandler.__init__).parameters
    assert {"manager", "loop", "logger", "access_log", "auto_decompress"} <= parameters.keys()
    assert list(parameters)[1] == "manager"


def test_request_handler_answers_bad_http_by_handle_error() -> None:
    """`web.RequestHandler.handle_error` exists and takes the same arguments as the gateway's override."""
    theirs, ours = (inspect.signature(kind.handle_error).parameters for kind in (web.RequestHandler, Connection))
    assert {name: parameter.default for name, parameter in theirs.items()} == {
        name: parameter.default for name, parameter in ours.items()
    }


def test_request_handler_has_no_attribute_of_ours() -> None:
    """`Connection` overrides only `handle_error`, and shares no other name with aiohttp's class."""
    ours = {name for name in vars(Connection) if not name.startswith("__")}
    assert ours & set(dir(web.RequestHandler)) == {"handle_error"}
    assert "_Connection__app" not in dir(web.RequestHandler)


def test_request_has_its_writer() -> None:
    """`web.BaseRequest.writer` exists; `100 Continue` is sent with it."""
    assert isinstance(inspect.getattr_static(web.BaseRequest, "writer"), property)


def test_server_cancels_handlers() -> None:
    """`web.Server` takes `handler_cancellation`, documented for applications only."""
    assert "handler_cancellation" in inspect.signature(web.Server.__init__).parameters
