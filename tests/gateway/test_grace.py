"""A gateway that ends with a grace: answers under way may end, and the others end with an error."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from ctxcache import AsyncSession, InvalidInputError, RateLimitError
from ctxcache.gateway import MODELS, Gateway, Piece
from ctxcache.models import user


@pytest.fixture
async def streaming(start: Any, dictated: Any) -> Any:
    """A gateway in the middle of a stream: the API, the context's id, the response with a chunk read."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("one")
    response = await api.open(created["id"], stream=True)
    async with asyncio.timeout(5):
        assert b"one" in await response.content.readany()
    yield api, created["id"], response
    response.close()


async def closing(api: Any, grace: float | None) -> "asyncio.Task[None]":
    """Begin to close, and go on until nothing is listened to any more."""
    task = asyncio.create_task(api.gateway.aclose(grace=grace))
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", api.gateway.port)
            except ConnectionRefusedError:
                return task
            except ConnectionError:
                continue  # waited to be accepted when the socket was closed
            writer.transport.abort()


async def test_a_stream_may_end_within_the_grace(streaming: Any, dictated: Any) -> None:
    """New connections are refused at once; the stream comes to its end, the turn is stored, and the gateway ends."""
    api, context_id, response = streaming
    task = await closing(api, grace=30)
    assert not task.done()
    dictated.say("two", None)
    async with asyncio.timeout(5):
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
        await task
    assert [message.text for message in api.gateway.messages(context_id)] == ["Be kind.", "hello", "onetwo"]
    assert repr(api.gateway) == "Gateway(not running)"


@pytest.mark.parametrize("grace", [0, 0.05])
async def test_after_the_grace_a_stream_ends_with_an_error_event(streaming: Any, dictated: Any, grace: float) -> None:
    """A stream that has not ended is not cut: it ends with an error, no `[DONE]`, and stores nothing."""
    api, context_id, response = streaming
    async with asyncio.timeout(5):
        await api.gateway.aclose(grace=grace)
        *_, last, rest = (await response.content.read()).decode().split("\n\n")
    assert rest == ""
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "ServerOverloaded"
    assert error["message"].startswith("The gateway is shutting down, and the answer was not complete.")
    assert len(api.gateway.messages(context_id)) == 1
    assert dictated.closed.is_set()


async def test_a_plain_answer_ends_with_503(start: Any, dictated: Any) -> None:
    """An answer of which nothing was sent is an error by status."""
    api = await start(engine=dictated)
    chat = asyncio.create_task(api.chat((await api.create())["id"]))
    async with asyncio.timeout(5):
        await dictated.started.wait()
        await api.gateway.aclose(grace=0)
        answer = await chat
    assert (answer.status, answer.error["code"]) == (503, "ServerOverloaded")
    assert answer.headers["Connection"] == "close"


async def test_our_own_client_is_told(dictated: Any) -> None:
    """The SDK raises an error that says why, with the part that came."""
    gateway = Gateway(engine=dictated)
    async with gateway, AsyncSession(gateway.api_key, gateway.base_url) as session:
        context = await session.context.create(model=MODELS[0], messages=[user("hi")])
        dictated.say("half")
        stream = session.chat.stream(context_id=context.id, model=MODELS[0], messages=[user("hi")])
        with pytest.raises(RateLimitError, match="shutting down") as ended:
            async with asyncio.timeout(5), stream:
                async for chunk in stream:
                    if chunk.text:
                        await gateway.aclose(grace=0)
        partial: Any = ended.value.partial
        assert partial.text == "half"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_of_batches_is_ended_too(start: Any, stream: bool) -> None:
    """An engine that the reader runs itself is cancelled in the middle of a batch, and cleans up."""

    class Batches:
        batches = True
        all_replies = True
        waiting, closed = asyncio.Event(), asyncio.Event()

        async def generate(self, prompt: Any) -> Any:
            try:
                yield [Piece(text="half")]
                self.waiting.set()
                await asyncio.Event().wait()
            finally:
                self.closed.set()

    api = await start(engine=Batches())
    chat = asyncio.create_task(api.chat((await api.create())["id"], stream=stream))
    async with asyncio.timeout(5):
        await Batches.waiting.wait()
        await api.gateway.aclose(grace=0)
        answer = await chat
    assert Batches.closed.is_set()
    assert answer.status == (200 if stream else 503)
    assert (b"half" in answer.body, b"shutting down" in answer.body) == (stream, True)


@pytest.mark.parametrize("held", ["prepare", "count_tokens", "count_tokens of a chat"])
async def test_a_wait_for_the_engine_ends_with_503(start: Any, held: str) -> None:
    """A create and a chat that wait for the engine before anything is written are answered too, and keep nothing."""

    class Slow:
        waiting, calls = asyncio.Event(), 0

        async def prepare(self, context: Any) -> None:
            if held == "prepare":
                await self._wait()

        async def count_tokens(self, model: str, messages: Any) -> list[int]:
            self.calls += 1
            if held == "count_tokens" or (held != "prepare" and self.calls == 2):
                await self._wait()
            return [1] * len(messages)

        async def _wait(self) -> None:
            self.waiting.set()
            await asyncio.Event().wait()

        async def generate(self, prompt: Any) -> Any:
            yield "fine"

    engine = Slow()
    api = await start(engine=engine)
    path, body = "/context/create", {"model": MODELS[0], "messages": [{"role": "user", "content": "hi"}]}
    if held == "count_tokens of a chat":
        path, body = "/context/chat/completions", api.chat_body((await api.create())["id"], "hi")
    call = asyncio.create_task(api.post(path, body))
    async with asyncio.timeout(5):
        await engine.waiting.wait()
        await api.gateway.aclose(grace=0)
        answer = await call
    assert (answer.status, answer.error["code"]) == (503, "ServerOverloaded")
    if "context_id" in body:
        assert len(api.gateway.messages(body["context_id"])) == 1


async def test_a_request_that_is_not_all_there_ends_with_503(start: Any) -> None:
    """A request whose body is still on the way is answered, not cut."""
    api = await start()
    head = f"POST /v1/context/create HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.gateway.api_key}\r\n"
    wanted = "Content-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    reader, _ = await api.connect((head + wanted).encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await api.gateway.aclose(grace=0)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")


async def test_an_engine_that_writes_without_a_wait_is_ended_too(start: Any) -> None:
    """An answer that never waits ends as well, though there is always more to take."""

    class Endless:
        async def generate(self, prompt: Any) -> Any:
            while True:
                yield "word "

    api = await start(engine=Endless(), models={MODELS[0]: 1_000_000_000})
    response = await api.open((await api.create())["id"], stream=True)
    read = asyncio.create_task(response.content.read())
    async with asyncio.timeout(10):
        await api.gateway.aclose(grace=0)
        assert b"shutting down" in (await read)[-1000:]


async def test_idle_connections_do_not_use_up_the_grace(start: Any) -> None:
    """Connections without a request, with half a head, or kept for the next request are closed at once."""
    api = await start()
    await api.create()  # the client keeps the connection
    for sent in (b"", b"GET /healthz HT"):
        await api.connect(sent)
    async with asyncio.timeout(5):
        await api.gateway.aclose(grace=60)


async def test_a_second_close_cuts_the_grace_short(streaming: Any) -> None:
    """Whoever has no patience closes again: connections are cut."""
    api, _, response = streaming
    task = await closing(api, grace=60)
    async with asyncio.timeout(5):
        await api.gateway.aclose()
        await task
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()


async def test_a_cancelled_grace_ends_at_once(streaming: Any, dictated: Any) -> None:
    """A cancelled close leaves nothing open."""
    api, _, response = streaming
    task = await closing(api, grace=60)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
    assert dictated.closed.is_set()
    assert repr(api.gateway) == "Gateway(not running)"


@pytest.mark.parametrize("wrong", [-1, "5", float("nan")])
async def test_a_grace_is_checked(start: Any, wrong: Any) -> None:
    """A grace that is no number from 0 up is refused, and the gateway runs on."""
    api = await start()
    with pytest.raises(InvalidInputError, match="grace must be a number from 0 up"):
        await api.gateway.aclose(grace=wrong)
    assert (await api.create())["id"]
