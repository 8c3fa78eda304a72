"""Calls without a context: passed on and back as they are."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from .conftest import MODEL, UPSTREAM_KEY, Front, Upstream

Before = Callable[..., Awaitable[Front]]
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.fixture
async def front(upstream: Upstream, before: Before) -> Front:
    """A proxy before a server without contexts."""
    return await before(upstream.url)


async def test_error_comes_back_unchanged(upstream: Upstream, front: Front) -> None:
    """An error keeps its status, body and `Retry-After`."""
    upstream.say("/chat/completions", b'{"error": "busy"}', 429, Retry_After="7", X_Request_Id="req-1")
    answer = await front.chat(BODY)
    assert (answer.status, answer.body, answer.way) == (429, b'{"error": "busy"}', "plain")
    assert (answer.headers["Retry-After"], answer.headers["X-Request-Id"]) == ("7", "req-1")


async def test_redirects_are_not_followed(upstream: Upstream, front: Front) -> None:
    """A redirect comes back as it is: the key goes nowhere else."""
    upstream.say("/chat/completions", b"", 307, Location=f"{upstream.url}/elsewhere")
    assert (await front.chat(BODY)).status == 307
    assert [path for path, _ in upstream.requests] == ["/chat/completions"]


def breaking(kind: str, data: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer that breaks off after some bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        await response.write(data)
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


async def test_broken_stream(upstream: Upstream, front: Front) -> None:
    """A stream that breaks off ends with an error event, after the bytes that came."""
    upstream.answers["/v1/chat/completions"] = breaking("text/event-stream", b'data: {"id": 1}\n\ndata: {"cut')
    answer = await front.chat({**BODY, "stream": True})
    assert answer.status == 200
    assert answer.body.startswith(b'data: {"id": 1}\n\ndata: {"cut\n\ndata: {"error":')
    assert b"[DONE]" not in answer.body


async def test_broken_answer(upstream: Upstream, front: Front) -> None:
    """A plain answer that breaks off is a 502, never half an answer."""
    upstream.answers["/v1/chat/completions"] = breaking("application/json", b'{"choices": [')
    answer = await front.chat(BODY)
    assert (answer.status, answer.json["error"]["type"]) == (502, "APIConnectionError")


async def test_stream_is_relayed_read_by_read(upstream: Upstream, front: Front) -> None:
    """An event is passed back before the next one comes; a client that leaves ends the upstream's stream."""
    left = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    upstream.answers["/v1/chat/completions"] = answer
    async with asyncio.timeout(5):
        async with front.open({**BODY, "stream": True}) as response:
            assert await response.content.readany() == b"data: 1\n\n"
            response.close()
        await left.wait()


async def test_http_1_0(upstream: Upstream, front: Front) -> None:
    """A client of HTTP/1.0 gets a stream that ends with the connection."""
    upstream.say("/chat/completions", b"data: [DONE]\n\n", kind="text/event-stream")
    async with aiohttp.ClientSession(version=aiohttp.HttpVersion10) as http:
        url = f"{front.proxy.base_url}/chat/completions"
        async with http.post(url, json={**BODY, "stream": True}, headers=front.key) as response:
            assert await response.read() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_compressed_answer(upstream: Upstream, front: Front, kind: str) -> None:
    """An answer that the upstream compresses, though not asked to, comes back readable."""
    sent = b'data: {"id": 1}\n\n' * 9000
    upstream.say("/chat/completions", gzip.compress(sent), kind=kind, Content_Encoding="gzip")
    answer = await front.chat(BODY)
    assert (answer.status, answer.body) == (200, sent)
    assert "Content-Encoding" not in answer.headers


async def test_unknown_encoding(upstream: Upstream, front: Front) -> None:
    """An encoding that nobody here can read is passed back, with its name."""
    upstream.say("/chat/completions", b"odd", Content_Encoding="x-odd")
    answer = await front.chat(BODY)
    assert (answer.body, answer.headers["Content-Encoding"]) == (b"odd", "x-odd")


async def test_compressed_error_does_not_show_the_key(upstream: Upstream, front: Front) -> None:
    """An error that repeats the upstream's key is redacted, compressed or not."""
    told = json.dumps({"error": {"message": f"bad key {UPSTREAM_KEY}"}}).encode()
    upstream.say("/chat/completions", gzip.compress(told), 401, Content_Encoding="gzip")
    answer = await front.chat(BODY)
    assert (answer.status, "bad key" in answer.json["error"]["message"]) == (401, True)
    assert UPSTREAM_KEY[:12].encode() not in answer.body


async def test_large_bodies(upstream: Upstream, front: Front) -> None:
    """Bodies of some megabytes go both ways, without a warning."""
    text = "long text " * 300_000
    upstream.say("/chat/completions", json.dumps({"text": text}).encode())
    answer = await front.chat({**BODY, "extra": text})
    assert (answer.status, answer.json["text"]) == (200, text)
    assert json.loads(upstream.requests[0][1])["extra"] == text
