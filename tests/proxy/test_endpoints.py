"""The endpoints of the proxy: which way a chat goes, and how the answer looks."""

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxcache import SQLiteStore
from ctxcache.gateway import Gateway
from ctxcache.proxy.recognition import Registry

from .conftest import LONG, MARK, MODEL, UPSTREAM_KEY, Clock, Front, NotedEngine, Upstream, marked

Before = Callable[..., Awaitable[Front]]
UNMARKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}


async def test_first_chat_creates_and_later_ones_hit(front: Front, engine: NotedEngine) -> None:
    """The first chat of a marked beginning creates a context, later ones use it; the tokens are really cached."""
    first, second = await front.chat(marked("one")), await front.chat(marked("two"))
    assert [first.way, second.way] == ["created", "hit"]
    assert first.headers["X-Ctxcache"].partition("; ")[2] == engine.contexts[0].id
    assert (first.text, second.text) == ("echo: one", "echo: two")
    assert second.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 500
    assert {"id", "object", "created", "model", "choices", "usage"} <= second.json.keys()
    assert (second.json["object"], second.json["model"]) == ("chat.completion", MODEL)
    assert len(engine.contexts) == 1


async def test_each_message_is_sent_once(front: Front, engine: NotedEngine) -> None:
    """The model sees the messages as they were asked, in order, and the context has the marked ones."""
    body = marked("first", "second", temperature=0.5)
    await front.chat(body)
    (prompt,) = engine.prompts
    assert [(message.role, message.text) for message in prompt.messages] == [
        ("system", LONG),
        ("user", "first"),
        ("user", "second"),
    ]
    assert len(prompt.context) == 1
    assert prompt.request.temperature == 0.5


async def test_many_at_once_share_one_context(front: Front, engine: NotedEngine) -> None:
    """200 chats at once on one new beginning create one context, and exactly one says so."""
    answers = await asyncio.gather(*(front.chat(marked(f"question {number}")) for number in range(200)))
    assert [answer.text for answer in answers] == [f"echo: question {number}" for number in range(200)]
    assert sorted(answer.way for answer in answers) == ["created", *["hit"] * 199]
    assert len(engine.contexts) == 1


async def test_stream(front: Front) -> None:
    """A stream is one of OpenAI's: chunks with the model as asked, no usage that was not asked for, the end marker."""
    answer = await front.chat(marked("one", stream=True))
    *chunks, done = answer.events
    assert (answer.status, answer.way, done) == (200, "created", "[DONE]")
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "echo: one "
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {("chat.completion.chunk", MODEL)}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any(chunk.get("usage") for chunk in chunks)


async def test_stream_with_usage(front: Front) -> None:
    """With `include_usage` the last chunk has no choices, and the usage with the cached tokens."""
    answer = await front.chat(marked("one", stream=True, stream_options={"include_usage": True}))
    *_, last, _ = answer.events
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] > 500


@pytest.mark.parametrize("stream", [False, True])
async def test_expired_context_is_replaced(front: Front, gateway: Gateway, engine: NotedEngine, stream: bool) -> None:
    """A context that the service has dropped is replaced within the call: the client notices nothing."""
    await front.chat(marked("one"))
    assert gateway.expire(engine.contexts[0].id)
    answer = await front.chat(marked("two", stream=stream))
    assert (answer.status, answer.way) == (200, "created")
    assert answer.headers["X-Ctxcache"].endswith(engine.contexts[1].id)
    assert b"two" in answer.body
    assert len(engine.prompts) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_header_names_the_context_of_the_answer(upstream: Upstream, before: Before, stream: bool) -> None:
    """A chat names the context that answered, though another chat has found that one gone and made a successor."""
    front = await before(upstream.url)
    arrived, may_answer = asyncio.Event(), asyncio.Event()
    choice = {"index": 0, "finish_reason": "stop", "delta" if stream else "message": {"content": "Hi"}}
    reply = json.dumps({"choices": [choice]})

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        if body["messages"][0]["content"] == "slow":
            arrived.set()
            await may_answer.wait()
        elif body["context_id"] == "ctx-1":
            return web.json_response({"error": {"code": "NotFound.Context", "message": "gone"}}, status=404)
        if stream:
            return web.Response(text=f"data: {reply}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
        return web.Response(text=reply, content_type="application/json")

    upstream.answers["/v1/context/chat/completions"] = answer
    upstream.say("/context/create", b'{"id": "ctx-1"}')
    slow = asyncio.create_task(front.chat(marked("slow", stream=stream)))
    await arrived.wait()
    upstream.say("/context/create", b'{"id": "ctx-2"}')
    assert (await front.chat(marked("quick", stream=stream))).headers["X-Ctxcache"] == "created; ctx-2"
    may_answer.set()
    assert (await slow).headers["X-Ctxcache"] == "hit; ctx-1"


async def test_client_that_leaves_ends_the_call(front: Front, engine: NotedEngine) -> None:
    """A client that leaves in the middle of a stream closes the stream of the service."""
    async with front.open(marked("endless", stream=True)) as response:
        await response.content.readany()
        assert not engine.closed.is_set()
        response.close()
    async with asyncio.timeout(5):
        await engine.closed.wait()
    assert (await front.chat(marked("still there?"))).text == "echo: still there?"


async def test_contexts_are_shared_by_a_store(
    gateway: Gateway, engine: NotedEngine, before: Before, tmp_path: Path
) -> None:
    """A second proxy with the same store finds the context of the first."""
    async with SQLiteStore(tmp_path / "contexts.db") as store:
        fronts = [await before(gateway.base_url, store=store) for _ in range(2)]
        ways = [(await front.chat(marked("one"))).way for front in fronts]
        for front in fronts:
            await front.proxy.aclose()
    assert ways == ["created", "hit"]
    assert len(engine.contexts) == 1


# --- without a context ------------------------------------------------------------------------------------------------


async def test_unmarked_chat_is_passed_on_as_sent(upstream: Upstream, before: Before) -> None:
    """A chat without a mark goes on byte for byte, with the upstream's key, and the answer comes back unchanged."""
    front = await before(upstream.url)
    upstream.say("/chat/completions", b'{"choices": [], "odd": 1}', X_Ratelimit_Remaining_Requests="7", X_Secret="x")
    sent = b'{ "model":"m", "messages":[{"role":"user","content":"\\u00e4"}], "new_field": 1e3 }'
    answer = await front.chat(sent)
    assert upstream.requests == [("/chat/completions", sent)]
    assert upstream.keys == [f"Bearer {UPSTREAM_KEY}"]
    assert (answer.status, answer.body, answer.way) == (200, b'{"choices": [], "odd": 1}', "plain")
    assert answer.headers["X-Ratelimit-Remaining-Requests"] == "7"
    assert "X-Secret" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "all of it", **MARK}],
        },  # nothing would be left to ask
        {"model": MODEL, "messages": [{"role": "assistant", "content": "x", **MARK}, {"role": "user", "content": "y"}]},
        {"model": MODEL, "messages": [{"role": "user", "content": None, **MARK}, {"role": "user", "content": "y"}]},
        {"model": MODEL, "messages": [{"role": "user", "content": "x", **MARK}, {"role": "user"}], "stream": "yes"},
        {"model": MODEL, "messages": "none", "extra": None},
        {"model": 3, "messages": [{"role": "user", "content": "x", **MARK}, {"role": "user", "content": "y"}]},
        marked("x", context_id="ctx-mine"),
        marked("x", stream=True, stream_options="all"),
    ],
)
async def test_whatever_does_not_fit_is_passed_on(upstream: Upstream, before: Before, body: Any) -> None:
    """A chat that cannot go over a context is the upstream's to judge: passed on whole, without marks, once."""
    front = await before(upstream.url)
    upstream.say("/chat/completions", b"{}")
    answer = await front.chat(body)
    assert (answer.status, answer.way) == (200, "plain")
    ((path, sent),) = upstream.requests
    assert path == "/chat/completions"
    assert json.loads(sent) == json.loads(json.dumps(body).replace(f", {json.dumps(MARK)[1:-1]}", ""))


async def test_refused_context(upstream: Upstream, before: Before, clock: Clock) -> None:
    """Where the service refuses a context for good, the chat goes on without; the next create waits a while."""
    front = await before(upstream.url)
    upstream.say("/context/create", b'{"error": {"code": "TooShort", "message": "too short"}}', 400)
    upstream.say("/chat/completions", b"{}")
    assert [(await front.chat(marked("one"))).way for _ in range(2)] == ["plain"] * 2
    clock.now += 61
    assert (await front.chat(marked("one"))).way == "plain"
    assert [path for path, _ in upstream.requests].count("/context/create") == 2
    plain = [json.loads(body) for path, body in upstream.requests if path == "/chat/completions"]
    assert [body["messages"][0] for body in plain] == [{"role": "system", "content": LONG}] * 3


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_successor(upstream: Upstream, before: Before, stream: bool) -> None:
    """Where a context is gone and the service refuses another, the chat goes on without, once."""
    front = await before(upstream.url)
    upstream.say("/context/create", b'{"id": "ctx-1"}')
    reply = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}'
    upstream.say("/context/chat/completions", reply)
    assert (await front.chat(marked("one"))).way == "created"
    gone = b'{"error": {"code": "NotFound.Context", "message": "no such context", "param": "context_id"}}'
    upstream.say("/context/chat/completions", gone, 404)
    upstream.say("/context/create", b'{"error": {"code": "QuotaExceeded", "message": "spent"}}', 403)
    upstream.say("/chat/completions", b"{}")
    answer = await front.chat(marked("one", stream=stream))
    assert (answer.status, answer.way) == (200, "plain")
    paths = [path for path, _ in upstream.requests][2:]
    assert paths == ["/context/chat/completions", "/context/create", "/chat/completions"]


async def test_refused_chat_over_a_context(upstream: Upstream, before: Before) -> None:
    """A chat that the service refuses while the context lives is not sent again without a context."""
    front = await before(upstream.url)
    upstream.say("/context/create", b'{"id": "ctx-1"}')
    upstream.say("/context/chat/completions", b'{"error": {"code": "InvalidParameter", "message": "no"}}', 400)
    answer = await front.chat(marked("one"))
    assert (answer.status, answer.json["error"]["code"]) == (400, "InvalidParameter")
    assert [path for path, _ in upstream.requests] == ["/context/create", "/context/chat/completions"]


async def test_refusal_is_told_where_there_is_no_plain_chat(front: Front) -> None:
    """Where the upstream has no chat without a context, the client gets the refusal of the context, each time."""
    body = {**marked("one"), "model": "no-such-model"}
    answers = [await front.chat(body) for _ in range(2)]
    assert [answer.status for answer in answers] == [404, 404]
    assert {answer.json["error"]["code"] for answer in answers} == {"InvalidEndpointOrModel.NotFound"}


async def test_plain_stream_is_relayed_as_bytes(upstream: Upstream, before: Before) -> None:
    """A stream without a context comes back as the upstream's bytes, comments and odd fields included."""
    front = await before(upstream.url)
    sent = b': hello\n\ndata: {"odd": 1}\r\n\r\ndata: [DONE]\n\n'
    upstream.say("/chat/completions", sent, kind="text/event-stream")
    answer = await front.chat({**UNMARKED, "stream": True})
    assert (answer.body, answer.way) == (sent, "plain")


async def test_models(front: Front) -> None:
    """The models are the upstream's."""
    answer = await front.get("/models")
    assert MODEL in [model["id"] for model in answer.json["data"]]


# --- budget -----------------------------------------------------------------------------------------------------------


async def test_budget(front: Front, gateway: Gateway, engine: NotedEngine, before: Before, clock: Clock) -> None:
    """Beyond the budget a new beginning goes without a context; a place is free when a context has ended."""
    front = await before(gateway.base_url, max_contexts=2, ttl=3600)
    assert [(await front.chat(marked("x", text=text * 50))).way for text in ("a ", "b ")] == ["created"] * 2
    assert (await front.chat(marked("x", text="c " * 50))).status == 404  # the gateway has no chat without a context
    assert (await front.chat(marked("x", text="a " * 50))).way == "hit"
    clock.now += 4000
    assert (await front.chat(marked("x", text="c " * 50))).way == "created"
    assert len(engine.contexts) == 3


async def test_no_budget(upstream: Upstream, before: Before) -> None:
    """With `max_contexts=0` no mark creates a context."""
    front = await before(upstream.url, max_contexts=0)
    upstream.say("/chat/completions", b"{}")
    assert (await front.chat(marked("one"))).way == "plain"
    assert [path for path, _ in upstream.requests] == ["/chat/completions"]


async def test_learned_beginning(gateway: Gateway, engine: NotedEngine, before: Before) -> None:
    """With `learn=3` the third chat that begins so goes over a context, within the budget."""
    front = await before(gateway.base_url, learn=3, learn_tokens=100, max_contexts=1)

    def body(question: str, text: str = LONG) -> dict[str, Any]:
        return {
            "model": MODEL,
            "messages": [{"role": "system", "content": text}, {"role": "user", "content": question}],
        }

    answers = [await front.chat(body(f"question {number}")) for number in range(5)]
    assert [answer.way for answer in answers] == ["plain", "plain", "created", "hit", "hit"]
    assert answers[4].text == "echo: question 4"
    others = [await front.chat(body("x", f"other {LONG}")) for _ in range(4)]
    assert {answer.way for answer in others} == {"plain"}
    assert len(engine.contexts) == 1


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_service(upstream: Upstream, before: Before, status: int, stream: bool) -> None:
    """An error of the service comes back with its status, code, message, id and `Retry-After`, after one attempt."""
    front = await before(upstream.url)
    upstream.say("/context/create", b'{"id": "ctx-1"}')
    error = b'{"error": {"code": "Some.Code", "message": "why", "type": "Kind", "param": "p"}}'
    upstream.say("/context/chat/completions", error, status, Retry_After="3", X_Request_Id="req-9")
    answer = await front.chat(marked("one", stream=stream))
    assert answer.status == status
    told = answer.json["error"]
    assert told == {"message": "why", "code": "Some.Code", "type": "Kind", "param": "p"}
    assert (answer.headers["Retry-After"], answer.headers["X-Request-Id"]) == ("3", "req-9")
    assert [path for path, _ in upstream.requests] == ["/context/create", "/context/chat/completions"]


async def test_rate_limited_create(upstream: Upstream, before: Before) -> None:
    """A create that may succeed later is no reason to go without a context: the client hears when to come back."""
    front = await before(upstream.url)
    upstream.say(
        "/context/create", b'{"error": {"code": "RateLimitExceeded", "message": "slow"}}', 429, Retry_After="2"
    )
    answer = await front.chat(marked("one"))
    assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
    assert len(upstream.requests) == 1


async def test_error_in_a_stream(upstream: Upstream, before: Before) -> None:
    """A stream that breaks off ends with an error that OpenAI's clients raise, and without the end marker."""
    front = await before(upstream.url)
    upstream.say("/context/create", b'{"id": "ctx-1"}')
    chunk = b'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
    upstream.say("/context/chat/completions", chunk, kind="text/event-stream")
    first, last = (await front.chat(marked("one", stream=True))).events
    assert first["choices"][0]["delta"]["content"] == "Hi"
    assert last["error"]["type"] == "StreamInterruptedError"


async def test_upstream_that_is_down(before: Before) -> None:
    """An upstream that cannot be reached is a 502 in OpenAI's envelope, marked or not."""
    front = await before("http://127.0.0.1:1/v1")
    for body in (marked("one"), UNMARKED):
        answer = await front.chat(body)
        assert answer.status == 502
        assert answer.json["error"]["type"] == "APIConnectionError"
    assert (await front.get("/models")).status == 502


async def test_keys_stay_apart(upstream: Upstream, before: Before) -> None:
    """A wrong key is refused here; the upstream's key is not in any answer, though the upstream repeats it."""
    front = await before(upstream.url)
    told = json.dumps({"error": {"message": f"bad key {UPSTREAM_KEY}"}}).encode()
    for path in ("/chat/completions", "/context/create", "/models"):
        upstream.say(path, told, 401)
    for answer in (await front.chat(UNMARKED), await front.chat(marked("x")), await front.get("/models")):
        assert answer.status == 401
        assert UPSTREAM_KEY[:12].encode() not in answer.body
    assert set(upstream.keys) == {f"Bearer {UPSTREAM_KEY}"}
    url = f"{front.proxy.base_url}/chat/completions"
    async with front.http.post(url, json=UNMARKED, headers={"Authorization": f"Bearer {UPSTREAM_KEY}"}) as response:
        assert response.status == 401
    assert len(upstream.requests) == 3


async def test_large_chat(front: Front, engine: NotedEngine) -> None:
    """A body of a hundred kilobytes is read, and every character reaches the model."""
    text = "long text " * 10_000
    answer = await front.chat(marked("one", text=text))
    assert answer.status == 200
    assert engine.prompts[0].messages[0].text == text


async def test_the_event_loop_goes_on_while_a_large_chat_is_recognised(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginnings of a large chat are compared in a thread: other requests are answered meanwhile."""
    recognising, answered = threading.Event(), threading.Event()

    def beginnings(*given: Any) -> Any:
        recognising.set()
        assert answered.wait(5)
        return original(*given)

    original = Registry.beginnings
    monkeypatch.setattr(Registry, "beginnings", beginnings)
    async with asyncio.timeout(5):
        asking = asyncio.create_task(front.chat(marked("one", text="x" * 100_000)))
        await asyncio.to_thread(recognising.wait, 5)
        assert (await front.get("/models")).status == 200
        answered.set()
        assert (await asking).way == "created"


async def test_client_that_leaves_early(front: Front, engine: NotedEngine, caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves before the answer ends the call, without a warning; the context serves the next client."""
    asking = asyncio.create_task(front.chat(marked("endless")))
    await engine.generating.wait()
    asking.cancel()
    async with asyncio.timeout(5):
        await engine.closed.wait()
    assert (await front.chat(marked("one"))).text == "echo: one"
    assert len(engine.contexts) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
