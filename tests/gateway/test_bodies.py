"""Request bodies that are not JSON, or too large: a 4xx in the envelope, never a traceback or a 500."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from ctxcache.errors import BadRequestError, RateLimitError
from ctxcache.gateway import GatewayLimits
from ctxcache.gateway.bodies import Bodies, refuse
from ctxcache.gateway.rules.table import ContextTable
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
    status, _ = await raw(data, limits=GatewayLimits(body_bytes=1000))
    assert status == 413
    status, _ = await raw(data, limits=GatewayLimits(body_bytes=1024))
    assert status == 400, "a body of just the limit is read"


async def test_a_body_of_bad_chunks(raw: Any) -> None:
    """Bad chunked encoding is a 400."""
    assert (await raw(post(b"3\r\nfooXX\r\n", b"Transfer-Encoding: chunked")))[0] == 400


@pytest.mark.parametrize("seconds", [0.001, 0.05])
async def test_a_body_that_does_not_come(raw: Any, seconds: float) -> None:
    """A body that stops arriving is a 408 after the limit."""
    data = post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked")
    status, body = await raw(data, limits=GatewayLimits(body_seconds=seconds))
    assert (status, body["error"]["type"]) == (408, "RequestTimeout")
    assert f"within {seconds:g} s" in body["error"]["message"]


async def test_a_body_that_goes_on_with_a_bad_chunk(raw: Any) -> None:
    """A later bad chunk is a 400 if aiohttp's parser reports the chunk (in Python), else a 408 after the limit."""
    data = post(b"3\r\nfoo\r\n", b"Transfer-Encoding: chunked")
    limits = GatewayLimits(body_seconds=5 if PYTHON_PARSER else 0.05)
    assert (await raw(data, later=b"3\r\nfooXX\r\n", limits=limits))[0] == (400 if PYTHON_PARSER else 408)


async def test_a_body_that_breaks_off() -> None:
    """A bad chunk reported while the body is read is a 400."""
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    headers = {"Content-Type": "application/json"}
    request: Any = make_mocked_request("POST", "/v1/context/create", headers, payload=body)
    bodies = Bodies(lambda _: (), size=1000, seconds=5, memory=1000)
    body.set_exception(web.RequestPayloadError("bad chunk"))
    with pytest.raises(BadRequestError, match="The request is not valid HTTP"):
        await bodies.read(ContextRequest, request, bodies.reserve())


async def test_a_client_that_waits_for_continue(start: Any) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    api = await start(api_key=KEY)
    reader, writer = await api.connect(post(b"", b"Expect: 100-Continue", b"Content-Length: 2"))
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert b"MissingParameter.model" in await reader.readuntil(b"}}")


async def test_http_1_0_gets_no_continue(start: Any) -> None:
    """A client of HTTP/1.0 does not know `100 Continue`: the first bytes are those of the answer."""
    api = await start(api_key=KEY)
    request = post(b"{}", b"Expect: 100-continue", b"Content-Length: 2").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    reader, _ = await api.connect(request)
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.0 400 ")


async def test_an_expectation_that_cannot_be_met(raw: Any) -> None:
    """Any other `Expect` is a 417."""
    status, body = await raw(post(b"{}", b"Expect: a-miracle", b"Content-Length: 2"))
    assert (status, body["error"]["param"]) == (417, "Expect")


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", ["{}", "[]", "1", '"a"', '{"role":"user","content":"a"}'])
@pytest.mark.parametrize("place", ['"messages":[%s]', '"messages":[{"role":"user","content":"a"}],"x":[%s]'])
async def test_a_body_of_too_many_values(raw: Any, item: str, place: str) -> None:
    """A body within the size, with more values than any request has, is a 400 before a value is made."""
    body = '{"model":"Doubao-1.5-pro-32k",%s}' % (place % ",".join([item] * 110_000))
    status, answer = await raw(post(body.encode()))
    assert (status, answer["error"]["code"]) == (400, "InvalidParameter")
    assert "more than 100000 values" in answer["error"]["message"]


async def test_as_many_messages_as_the_window_takes(start: Any) -> None:
    """Punctuation within strings is no value, and a window may be full of the shortest messages."""
    api = await start()
    await api.create(messages=[{"role": "user", "content": "[,"}] * 25_000)
    await api.create(messages=[{"role": "user", "content": "[{,:" * 32_000}])


def body_of(size: int) -> bytes:
    """Return a create of so many bytes."""
    head, end = b'{"model":"Doubao-1.5-pro-32k","messages":[{"role":"user","content":"hi","name":"', b'"}]}'
    return head + b"x" * (size - len(head) - len(end)) + end


async def test_all_requests_under_way_are_bounded_together(start: Any) -> None:
    """While bodies that still arrive take all the memory, another is a 429 with `Retry-After`; later there is room."""
    api = await start(api_key=KEY, limits=GatewayLimits(request_bytes=100_000))
    waiting = []
    for _ in range(2):
        reader, writer = await api.connect(post(body_of(50_000)[:45_000], b"Content-Length: 50000"))
        waiting.append((reader, writer))
    refused = None
    async with asyncio.timeout(5):
        while refused is None or refused.status == 200:  # until both bodies are read as far as they have come
            url = f"{api.gateway.base_url}/context/create"
            headers = {**api.key, "Content-Type": "application/json"}
            refused = await api.request("POST", url, data=body_of(9_000), headers=headers)
        assert (refused.status, refused.error["code"]) == (429, "ServerOverloaded")
        assert refused.headers["Retry-After"] == "1"
        for _, writer in waiting:
            writer.transport.abort()
        while refused.status != 200:
            refused = await api.request("POST", url, data=body_of(9_000), headers=headers)


async def test_memory_is_given_back_at_the_end_of_each_request(start: Any, dictated: Any) -> None:
    """A request takes memory until the answer is sent, and none afterwards, whatever the answer was."""
    limits = GatewayLimits(request_bytes=100_000)
    api = await start(engine=dictated, limits=limits)
    created = await api.create(mode="common_prefix")
    for _ in range(10):
        answer = await api.post("/context/create", {"model": "none", "messages": [], "x": "x" * 20_000})
        assert answer.status in {400, 404}
    asked = asyncio.create_task(api.chat(created["id"], "hello", user="x" * 18_000))
    async with asyncio.timeout(5):
        await dictated.started.wait()
        refused = await api.chat(created["id"], "hello", user="x" * 18_000)
        assert (refused.status, refused.error["code"]) == (429, "ServerOverloaded")
        dictated.say(None)
        assert (await asked).status == 200
        dictated.say(None)
        assert (await api.chat(created["id"], "hello", user="x" * 18_000)).status == 200


@pytest.mark.parametrize(("size", "count"), [(10_000, 400), (50_000, 700)])
async def test_punctuation_within_text_takes_no_memory(start: Any, size: int, count: int) -> None:
    """A text of braces is charged as any other text, a shorter body of many values is charged for each."""
    api = await start(limits=GatewayLimits(request_bytes=250_000))
    await api.create(messages=[{"role": "user", "content": "{" * size}])
    messages = [{"role": "user", "content": "["}] * count
    answer = await api.post("/context/create", {"model": "Doubao-1.5-pro-32k", "messages": messages})
    assert answer.status == 429


@pytest.mark.parametrize(("seconds", "told"), [(0, "0"), (0.3, "1"), (1, "1"), (1.2, "2")])
def test_retry_after_is_rounded_up(seconds: float, told: str) -> None:
    """A client that waits for as many whole seconds as told does not come too early."""
    response = refuse(RateLimitError("Slower.", status=429, retry_after=seconds), {"X-Request-Id": "1"})
    assert response.headers["Retry-After"] == told


async def test_the_event_loop_goes_on_while_a_large_body_is_measured(start: Any, monkeypatch: Any) -> None:
    """A large body is decoded and measured in a thread: other requests are answered meanwhile."""
    measuring, answered = threading.Event(), threading.Event()

    def measure(table: Any, request: Any) -> Any:
        measuring.set()
        assert answered.wait(5)
        return original(table, request)

    original = ContextTable.measure
    monkeypatch.setattr(ContextTable, "measure", measure)
    api = await start()
    async with asyncio.timeout(5):
        create = asyncio.create_task(api.create(messages=[{"role": "user", "content": "x" * 100_000}]))
        await asyncio.to_thread(measuring.wait, 5)
        health = await api.request("GET", api.gateway.base_url.removesuffix("/v1") + "/healthz")
        assert health.status == 200
        answered.set()
        assert (await create)["usage"]["prompt_tokens"] == 25_000


async def test_a_gateway_that_is_closed_leaves_no_thread(start: Any) -> None:
    """The thread for large bodies ends with the gateway, and a restarted gateway has another."""
    api = await start()
    messages = [{"role": "user", "content": "x" * 100_000}]
    others = threading.enumerate()  # such as those of a gateway that serves many tests
    for _ in range(2):
        await api.create(messages=messages)
        (thread,) = [
            each for each in threading.enumerate() if each.name.startswith("ctxcache-bodies") and each not in others
        ]
        await api.gateway.aclose()
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()
        await api.gateway.start()


async def test_many_bodies_at_once_take_turns(start: Any, monkeypatch: Any) -> None:
    """However many clients send at once, a turn of the event loop takes and decodes no more than some bodies."""
    turn = 0
    measured: list[int] = []

    def measure(table: Any, request: Any) -> Any:
        measured.append(turn)
        return original(table, request)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    original = ContextTable.measure
    monkeypatch.setattr(ContextTable, "measure", measure)
    api = await start(api_key=KEY)
    connections = [await api.connect() for _ in range(40)]
    counting = asyncio.create_task(count())
    for _, writer in connections:
        writer.write(post(body_of(15_000)))
    async with asyncio.timeout(5):
        for reader, _ in connections:
            assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
    counting.cancel()
    assert len(measured) == 40
    assert max(Counter(measured).values()) <= 5
