"""What is not HTTP, not JSON, or too much: always an answer of 4xx in the envelope, never a trace, never a 500."""

import asyncio
import json
import logging
from typing import Any

import pytest
from aiohttp import web

from ctxcache.gateway import app as app_module

KEY = "sk-hostile-0123456789"


@pytest.fixture
async def raw(start: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """Send bytes to a gateway on a connection of their own; return status and JSON of what comes back."""
    caplog.set_level(logging.DEBUG)
    api = await start(api_key=KEY)

    async def send(data: bytes, later: bytes = b"") -> tuple[int, Any]:
        reader, writer = await api.connect(data)
        if later:
            for _ in range(100):
                await asyncio.sleep(0)
            writer.write(later)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["Content-Length"]))
        assert headers["X-Request-Id"]
        assert headers["X-Tt-Logid"]
        assert KEY not in head.decode() + body.decode()
        return int(head.split()[1]), json.loads(body)

    yield send
    assert KEY not in caplog.text
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def post(body: bytes, *headers: bytes, kind: bytes = b"application/json") -> bytes:
    """Return the bytes of a request; headers given replace the Content-Length."""
    lines = [
        b"POST /v1/context/create HTTP/1.1",
        b"Host: x",
        b"Authorization: Bearer " + KEY.encode(),
        b"Content-Type: " + kind,
        *(headers or [b"Content-Length: %d" % len(body)]),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode() + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Header " + KEY.encode() + b": x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(500)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        post(b"{}", b"Content-Length: 2", b"Content-Length: 3"),
        post(b"{}", b"Content-Length: -2"),
    ],
    ids=["tls", "nonsense", "long-header", "bad-header", "many-headers", "long-path", "two-lengths", "minus"],
)
async def test_what_is_not_http(raw: Any, data: bytes) -> None:
    """400 in the envelope, which repeats nothing of it."""
    status, body = await raw(data)
    assert (status, body["error"]["code"]) == (400, "InvalidParameter")
    assert body["error"]["message"].startswith("The request is not valid HTTP")


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
    """400 in the envelope."""
    status, answer = await raw(post(body))
    assert (status, answer["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize("depth", range(900, 1001, 5))
async def test_nesting_of_every_depth(raw: Any, depth: int) -> None:
    """Whether the parser or the check meets its limit first: 400."""
    body = b'{"model":"m","messages":%b%b}' % (b"[" * depth, b"]" * depth)
    status, answer = await raw(post(body))
    assert (status, answer["error"]["code"]) == (400, "InvalidParameter")


async def test_nesting_that_the_check_cannot_show(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nested too deeply for the check's message is a 400 as well, at whatever depth that is."""

    def too_deep(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(app_module.codec, "decode_request", too_deep)
    status, answer = await raw(post(b"{}"))
    assert (status, "nested too deeply" in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize("kind", [b"text/plain", b"", b"application/x-www-form-urlencoded", b'\xff;;;="'])
async def test_another_content_type(raw: Any, kind: bytes) -> None:
    """415 in the envelope."""
    status, body = await raw(post(b"{}", kind=kind))
    assert (status, body["error"]["param"]) == (415, "Content-Type")


async def test_a_charset_does_no_harm(raw: Any) -> None:
    """`application/json; charset=utf-8` is JSON; this one just lacks its fields."""
    status, body = await raw(post(b"{}", kind=b"Application/JSON; charset=utf-8"))
    assert (status, body["error"]["code"]) == (400, "MissingParameter.model")


async def test_a_compressed_body(raw: Any) -> None:
    """415: nothing is unpacked, so no small body can become a large one."""
    status, body = await raw(post(b"\x1f\x8b??", b"Content-Encoding: gzip", b"Content-Length: 4"))
    assert (status, body["error"]["param"]) == (415, "Content-Encoding")


async def test_a_body_that_says_it_is_too_large(raw: Any) -> None:
    """413 at once."""
    status, body = await raw(post(b"{}", b"Content-Length: 99999999999"))
    assert (status, body["error"]["type"]) == (413, "RequestEntityTooLarge")


async def test_a_body_that_turns_out_too_large(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """413 where the limit is passed."""
    monkeypatch.setattr(app_module, "MAX_BODY", 1000)
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    status, _ = await raw(post(chunk + b"0\r\n\r\n", b"Transfer-Encoding: chunked"))
    assert status == 413


async def test_a_body_of_bad_chunks(raw: Any) -> None:
    """400."""
    assert (await raw(post(b"3\r\nfooXX\r\n", b"Transfer-Encoding: chunked")))[0] == 400


@pytest.mark.parametrize("later", [b"", b"3\r\nfooXX\r\n"])
async def test_a_body_that_does_not_come(raw: Any, monkeypatch: pytest.MonkeyPatch, later: bytes) -> None:
    """408 after a while, also where what does come is no chunk (which aiohttp's C parser keeps to itself)."""
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.05)
    status, body = await raw(post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked"), later=later)
    assert (status, body["error"]["type"]) == (408, "RequestTimeout")


async def test_a_body_that_breaks_off(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 at once, where aiohttp's parser tells of it (the one in Python does)."""

    async def told_of_it(request: web.BaseRequest) -> bytes:
        request.content.set_exception(web.RequestPayloadError("bad chunk"))
        return await request.content.readany()

    monkeypatch.setattr(app_module, "_next_part", told_of_it)
    status, body = await raw(post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked"))
    assert (status, body["error"]["message"].split(",")[0]) == (400, "The request is not valid HTTP")


async def test_a_client_that_waits_for_continue(start: Any) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    api = await start(api_key=KEY)
    reader, writer = await api.connect(post(b"", b"Expect: 100-Continue", b"Content-Length: 2"))
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert b"MissingParameter.model" in await reader.readuntil(b"}}")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"OPTIONS * HTTP/1.1", 404),
        (b"CONNECT x:80 HTTP/1.1", 404),
        (b"GET /%zz%ff HTTP/1.1", 404),
        (b"TRACE /healthz HTTP/1.1", 405),
        (b"BREW /healthz HTTP/1.1", 400),
        (b"GET http://elsewhere/v1/models HTTP/1.1", 401),
    ],
)
async def test_odd_request_lines(raw: Any, line: bytes, status: int) -> None:
    """Each has an answer of its own."""
    assert (await raw(line + b"\r\nHost: x\r\n\r\n"))[0] == status


async def test_a_key_that_is_not_text(raw: Any) -> None:
    """Bytes that are no UTF-8 are a wrong key, and an id of the client's that is none is not echoed."""
    status, body = await raw(
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nX-Client-Request-Id: \xff\r\n\r\n"
    )
    assert (status, body["error"]["code"]) == (401, "AuthenticationError")


async def test_a_bug_is_a_500_in_the_envelope(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else goes wrong is logged, and the client learns no more than that it did."""
    api = await start()
    monkeypatch.setattr(app_module.answers, "models", lambda _: 1 / 0)
    answer = await api.request("GET", f"{api.gateway.base_url}/models", headers=api.key)
    assert (answer.status, answer.error["code"]) == (500, "InternalServiceError")
    assert "ZeroDivisionError" in caplog.text
    assert "ivision" not in answer.body.decode()
