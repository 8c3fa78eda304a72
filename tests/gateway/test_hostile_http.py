"""HTTP as nobody should send: framing without end, two lengths, old and unknown versions, other names."""

import asyncio
import json
from typing import Any

import pytest

from ctxcache.gateway import Gateway, GatewayLimits

from .raw import KEY, PYTHON_PARSER, post

HOST = b"Host: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST
CHAT = b"/v1/context/chat/completions"
CHUNKED = b"Transfer-Encoding: chunked"


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the end of the connection, however that comes."""
    parts = []
    try:
        while part := await reader.read(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.skipif(PYTHON_PARSER, reason="limits lines by itself")
async def test_endless_chunk_extensions_are_refused(start: Any) -> None:
    """Framing that outweighs the body by far is a 400 and the end of the connection."""
    api = await start(api_key=KEY)
    reader, writer = await api.connect(post(b"2;", CHUNKED))
    async with asyncio.timeout(5):
        sent = 0
        end = asyncio.create_task(read_all(reader))
        while not (end.done() or writer.is_closing()) and sent < 10_000_000:
            writer.write(b"a" * 10_000)
            sent += 10_000
            await asyncio.sleep(0)
        assert sent < 10_000_000
        assert (await end)[:12] in {b"HTTP/1.1 400", b""}  # nothing, where the reset overtook the answer


async def test_chunks_of_one_byte_are_a_body(start: Any) -> None:
    """The most wasteful framing of a real body is read, however long the body is."""
    api = await start(api_key=KEY, limits=GatewayLimits(body_bytes=200_000))
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": "x" * 100_000}]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    reader, writer = await api.connect(post(b"", CHUNKED))
    async with asyncio.timeout(5):
        for start_ in range(0, len(chunks), 50_000):
            writer.write(chunks[start_ : start_ + 50_000])
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 404 Not Found\r\n"


async def test_pipelined_requests_are_answered_in_turn(start: Any) -> None:
    """Requests sent together get an answer each."""
    api = await start()
    reader, _ = await api.connect((HEALTH + b"\r\n") * 40 + HEALTH + b"Connection: close\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await read_all(reader)).count(b"HTTP/1.1 200 OK") == 41


@pytest.mark.parametrize("keep_alive", [b"Connection: keep-alive\r\n", b""])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_to_http_1_0_has_an_end(start: Any, stream: bool, keep_alive: bytes) -> None:
    """HTTP/1.0 knows no chunks: a stream ends with the connection, also where the client would keep that."""
    api = await start()
    created = await api.create()
    body = json.dumps(api.chat_body(created["id"], "hello", stream=stream)).encode()
    length = b"Content-Length: %d" % len(body)
    request = post(body, *filter(None, [keep_alive.strip(), length]), path=CHAT, key=api.gateway.api_key)
    reader, _ = await api.connect(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    async with asyncio.timeout(5):
        head, rest = await reader.readuntil(b"\r\n\r\n"), b""
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"chunked" not in head.lower()
        if stream:
            rest = await read_all(reader)
            assert rest.endswith(b"data: [DONE]\n\n")
        else:
            assert b"Content-Length: " in head
            assert (b"keep-alive" in head) == bool(keep_alive)


@pytest.mark.parametrize(
    "data",
    [
        post(b"0\r\n\r\n", b"Content-Length: 5", CHUNKED),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, gzip"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"),
        post(b"0\r\n\r\n", CHUNKED, CHUNKED),
        post(b"{}", b"Content-Length: 2, 2"),
        post(b"{}", b"Content-Length: +2"),
        post(b"{}", b"Content-Length: 0x2"),
        post(b"{}", b"Content-Length : 2"),
        post(b"{}", b"X: a\r\n b", b"Content-Length: 2"),
        HEALTH + HOST + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
        b"GET /heal\0thz HTTP/1.1\r\n" + HOST + b"\r\n",
        HEALTH + b"X: a\0b\r\n\r\n",
        HEALTH + b"".join(b"X-%d: 1\r\n" % number for number in range(64)) + b"\r\n",
        HEALTH + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
        post(b"-2\r\n{}", CHUNKED),
        pytest.param(
            post(b"fffffffffffffffff\r\n{}", CHUNKED),
            marks=pytest.mark.skipif(PYTHON_PARSER, reason="reads numbers of any length, and waits for the bytes"),
        ),
    ],
)
async def test_forms_that_two_readers_may_read_in_two_ways(raw: Any, data: bytes) -> None:
    """Ambiguous framing, and whatever else is no HTTP, is a 400: nothing is smuggled past a proxy in front."""
    status, body = await raw(data)
    assert (status, body["error"]["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize("data", [HEALTH + b"\r\n", b"nonsense\r\n\r\n", post(b"{}"), b"HEAD" + HEALTH[3:] + b"\r\n"])
async def test_the_server_tells_no_versions(start: Any, data: bytes) -> None:
    """The `Server` header is a name only, in every kind of answer."""
    api = await start(api_key=KEY)
    reader, _ = await api.connect(data)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.count(b"Server: ") == 1
    assert b"\r\nServer: ctxcache\r\n" in head
    assert b"ython" not in head


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:80", b"0.0.0.0"])
async def test_another_name_than_this_machines_is_421(raw: Any, host: bytes) -> None:
    """A page whose name was made to lead here reads nothing: not even whether the gateway is up."""
    status, body = await raw(b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert (status, body["error"]["param"], body["error"]["type"]) == (421, "Host", "MisdirectedRequest")
    assert "evil" not in body["error"]["message"]


@pytest.mark.parametrize(
    "settings", [{"allowed_hosts": ["evil.example"]}, {"allowed_hosts": ["*"]}, {"host": "0.0.0.0"}]
)
async def test_other_names_can_be_allowed(raw: Any, settings: dict[str, Any]) -> None:
    """A gateway serves the names that were allowed, and beyond loopback all names."""
    assert (await raw(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", **settings))[0] == 200


async def test_clients_that_call_by_every_name_of_this_machine(start: Any) -> None:
    """Usual clients send address or name, and port."""
    api = await start()
    for host in ("localhost", "127.0.0.1"):
        assert (await api.request("GET", f"http://{host}:{api.gateway.port}/healthz")).status == 200
    async with Gateway(host="::1") as six:
        assert (await api.request("GET", f"http://[::1]:{six.port}/healthz")).status == 200
