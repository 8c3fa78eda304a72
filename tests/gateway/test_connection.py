"""One connection, and bytes that are not HTTP."""

import logging
from typing import Any

import pytest

from .raw import KEY, PYTHON_PARSER, post

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TLS, marks=pytest.mark.skipif(PYTHON_PARSER, reason="waits for the end of a line")),
        TLS + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        HEALTH + b"Authorization: Bearer " + KEY.encode() + b"x" * 20_000 + b"\r\n\r\n",
        HEALTH + b"Bad Header " + KEY.encode() + b": x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(500)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        post(b"{}", b"Content-Length: 2", b"Content-Length: 3"),
        post(b"{}", b"Content-Length: -2"),
    ],
    ids=[
        "tls",
        "tls-line",
        "nonsense",
        "long-header",
        "bad-header",
        "many-headers",
        "long-path",
        "two-lengths",
        "minus",
    ],
)
async def test_what_is_not_http(raw: Any, data: bytes) -> None:
    """Bytes that are not HTTP get a 400 in the envelope, which repeats none of them."""
    status, body = await raw(data)
    assert (status, body["error"]["code"]) == (400, "InvalidParameter")
    assert body["error"]["message"].startswith("The request is not valid HTTP")


async def test_what_aiohttp_itself_logs_is_no_alarm(raw: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Aiohttp's own errors, caused by clients that break off, are logged at DEBUG."""
    logger = logging.getLogger("ctxcache.gateway.http")
    logger.exception("Unhandled exception")
    assert [(record.levelname, record.levelno) for record in caplog.records] == [("DEBUG", logging.DEBUG)]
    caplog.set_level(logging.INFO)
    logger.exception("Unhandled exception")
    assert len(caplog.records) == 1
