"""Request bodies that are not JSON, or too large: a 4xx in the envelope, never a traceback or a 500."""

import asyncio
from typing import Any

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from ctxcache.errors import BadRequestError
from ctxcache.gateway.bodies import BodyLimits, read_request
from ctxcache.models import ContextRequest

from .raw import KEY, PYTHON_PARSER, post


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"null",
        b"[]",
        b'"text"',
        b'{"model":',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        "{}".encode("utf-16"),
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"ttl":1e999}',
        b'{"ttl":' + b"9" * 10_000 + b"}",
    ],
)
async def test_what_is_not_json(raw: Any, body: bytes) -> None:
    """A body that is not JSON is a 400 in the envelope."""
    status, answer = await raw(post(body))
    assert (status, answer["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize("depth", range(900, 1001, 5))
async def test_nesting_of_every_depth(raw: Any, depth: int) -> None:
    """Nesting at every depth near the limits of parser and checks is a 400."""
    body = b'{"model":"m","messages":%b%b}' % (b"[" * depth, b"]" * depth)
    status, answer = await raw(post(body))
    assert (status, answer["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize("kind", [b"text/plain", b"", b"application/x-www-form-urlencoded", b'\xff;;;="'])
async def test_another_content_type(raw: Any, kind: bytes) -> None:
    """Another Content-Type is a 415 in the envelope."""
    status, body = await raw(post(b"{}", kind=kind))
    assert (status, body["error"]["param"]) == (415, "Content-Type")


async def test_a_charset_does_no_harm(raw: Any) -> None:
    """`application/json; charset=utf-8` is read as JSON."""
    status, body = await raw(post(b"{}", kind=b"Application/JSON; charset=utf-8"))
    assert (status, body["error"]["code"]) == (400, "MissingParameter.model")


async def test_a_compressed_body(raw: Any) -> None:
    """A compressed body is a 415, never unpacked: no small body can become large."""
    status, body = await raw(post(b"\x1f\x8b??", b"Content-Encoding: gzip", b"Content-Length: 4"))
    assert (status, body["error"]["param"]) == (415, "Content-Encoding")


async def test_a_body_that_says_it_is_too_large(raw: Any) -> None:
    """A Content-Length beyond the limit is a 413 at once."""
    status, body = await raw(post(b"{}", b"Content-Length: 99999999999"))
    assert (status, body["error"]["type"]) == (413, "RequestEntityTooLarge")


async def test_a_body_that_turns_out_too_large(raw: Any) -> None:
    """A chunked body is a 413 as soon as the limit is passed."""
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    data = post(chunk + b"0\r\n\r\n", b"Transfer-Encoding: chunked")
    status, _ = await raw(data, _body_limits=BodyLimits(size=1000))
    assert status == 413
    status, _ = await raw(data, _body_limits=BodyLimits(size=1024))
    assert status == 400, "a body of just the limit is read"


async def test_a_body_of_bad_chunks(raw: Any) -> None:
    """Bad chunked encoding is a 400."""
    assert (await raw(post(b"3\r\nfooXX\r\n", b"Transfer-Encoding: chunked")))[0] == 400


@pytest.mark.parametrize("seconds", [0, 0.05])
async def test_a_body_that_does_not_come(raw: Any, seconds: float) -> None:
    """A body that stops arriving is a 408 after the limit."""
    data = post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked")
    status, body = await raw(data, _body_limits=BodyLimits(seconds=seconds))
    assert (status, body["error"]["type"]) == (408, "RequestTimeout")
    assert f"within {seconds:g} s" in body["error"]["message"]


async def test_a_body_that_goes_on_with_a_bad_chunk(raw: Any) -> None:
    """A later bad chunk is a 400 if aiohttp's parser reports the chunk (in Python), else a 408 after the limit."""
    data = post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked")
    limits = BodyLimits(seconds=5 if PYTHON_PARSER else 0.05)
    assert (await raw(data, later=b"3\r\nfooXX\r\n", _body_limits=limits))[0] == (400 if PYTHON_PARSER else 408)


async def test_a_body_that_breaks_off() -> None:
    """A bad chunk reported while the body is read is a 400."""
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    headers = {"Content-Type": "application/json"}
    request: Any = make_mocked_request("POST", "/v1/context/create", headers, payload=body)
    body.set_exception(web.RequestPayloadError("bad chunk"))
    with pytest.raises(BadRequestError, match="The request is not valid HTTP"):
        await read_request(ContextRequest, request, BodyLimits())


async def test_a_client_that_waits_for_continue(start: Any) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    api = await start(api_key=KEY)
    reader, writer = await api.connect(post(b"", b"Expect: 100-Continue", b"Content-Length: 2"))
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert b"MissingParameter.model" in await reader.readuntil(b"}}")
