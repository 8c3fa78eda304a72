"""The bytes of requests, for tests that write to sockets themselves."""

from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

PYTHON_PARSER = HttpRequestParser is HttpRequestParserPy
"""aiohttp runs without its extensions: its parser in Python accepts more, and reports some faults sooner."""

KEY = "sk-hostile-0123456789"


def post(
    body: bytes, *headers: bytes, kind: bytes = b"application/json", path: bytes = b"/v1/context/create", key: str = KEY
) -> bytes:
    """Return the bytes of a request; headers given replace the Content-Length."""
    lines = [
        b"POST %b HTTP/1.1" % path,
        b"Host: localhost",
        b"Authorization: Bearer " + key.encode(),
        b"Content-Type: " + kind,
        *(headers or [b"Content-Length: %d" % len(body)]),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
