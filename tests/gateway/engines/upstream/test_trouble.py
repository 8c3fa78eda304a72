"""Servers that fail: what another server answers, what the client is told, and when a server is left alone."""

import json
from itertools import count
from typing import Any

import pytest

from ctxcache.errors import APIStatusError
from ctxcache.gateway import Prompt, UpstreamEngine
from ctxcache.gateway.engines.upstream.routing import ranked
from ctxcache.models import ChatRequest, system, user
from tests.descriptors import no_file_descriptors
from tests.hostile import (
    CLOSE,
    DONE,
    RESET,
    SSE,
    SSE_TO_EOF,
    STALL,
    Hostile,
    answer,
    chunk,
    event,
    pieces,
    refusal,
    streamed,
)

from .conftest import UPSTREAM_KEY, Naps

OK = [streamed(chunk("ok", finish="stop"), DONE)]


class Time:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def time() -> Time:
    """The clock of all breakers."""
    return Time()


async def told(relay: Any, *scripts: Any, hostile: Hostile, stream: bool = False, **settings: Any) -> Any:
    """Return the answer of a chat before a server that plays the scripts."""
    hostile.plays(*scripts)
    api = await relay(**settings)
    created = await api.create()
    found = await api.chat(created["id"], stream=stream)
    assert api.gateway.messages(created["id"]) == (system("Be kind."),), "nothing is stored"
    return found


# --- what the client is told ------------------------------------------------------------------------------------------

LLAMA = {
    "error": {
        "code": 400,
        "message": "request (9 tokens) exceeds the available context size (8 tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    }
}
VLLM_LONG = {
    "object": "error",
    "message": "This model's maximum context length is 8 tokens. However, you requested 9 tokens in the messages",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
SGLANG_LONG = {
    "object": "error",
    "message": "The input (9 tokens) is longer than the model's context length (8 tokens).",
    "type": "BadRequestError",
    "code": 400,
}
VLLM_MODEL = {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}}
OLLAMA_MODEL = {"error": {"message": 'model "x" not found, try pulling it first', "type": "not_found_error"}}
NO_PATH = {"detail": "Not Found"}


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, LLAMA, 400, "OutofContextError"),
        (400, VLLM_LONG, 400, "OutofContextError"),
        (400, SGLANG_LONG, 400, "OutofContextError"),
        (404, VLLM_MODEL, 404, "InvalidEndpointOrModel.NotFound"),
        (404, OLLAMA_MODEL, 404, "InvalidEndpointOrModel.NotFound"),
        (400, {"error": {"message": "bad seed", "param": "seed"}}, 400, "InvalidParameter"),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "bad"}]}, 400, "InvalidParameter"),
        (413, {"error": {"message": "too large"}}, 413, "InvalidParameter"),
        (401, {"error": {"message": f"wrong key {UPSTREAM_KEY}"}}, 502, "InternalServiceError"),
        (403, {"error": {"message": f"wrong key {UPSTREAM_KEY}"}}, 502, "InternalServiceError"),
        (404, NO_PATH, 502, "InternalServiceError"),
        (301, {}, 502, "InternalServiceError"),
        (500, {"error": {"message": "secret path"}}, 502, "InternalServiceError"),
        (402, {"error": {"message": "pay"}}, 429, "QuotaExceeded"),
        (404, {"error": {"message": "context c is not found"}}, 502, "InternalServiceError"),
        (400, {"error": {"message": "context c has expired", "param": "context_id"}}, 400, "InvalidParameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals(
    relay: Any, hostile: Hostile, status: int, body: Any, expected: int, code: str, stream: bool
) -> None:
    """Each refusal of a server is told as the service would tell it: nothing of keys, contexts or the server itself."""
    script = [answer(body, status=f"{status} No")]
    found = await told(relay, script, hostile=hostile, stream=stream, api_key=UPSTREAM_KEY)
    assert (found.status, found.error["code"]) == (expected, code)
    shown = found.body.decode()
    assert UPSTREAM_KEY not in shown
    assert "secret" not in shown
    assert "context c" not in shown
    assert len(hostile.posts) == 1, "asked once"


@pytest.mark.parametrize("status", [429, 503])
async def test_when_to_come_back(relay: Any, hostile: Hostile, status: int) -> None:
    """A server's `Retry-After` reaches the client."""
    script = [refusal(status, "", "slow", "Retry-After: 7")]
    found = await told(relay, script, script, hostile=hostile)
    assert (found.status, found.headers["Retry-After"]) == (status, "7")


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        ([SSE, *pieces(chunk("Hel"))], "Hel"),
        ([SSE, *pieces(chunk(""), chunk("Hel"), chunk("lo"))], "Hello"),
        ([SSE, *pieces(chunk("Hel"), chunk(finish="stop"))], "Hel"),
    ],
)
@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
async def test_a_broken_answer_is_an_error_event(relay: Any, hostile: Hostile, begin: Any, text: str, end: Any) -> None:
    """What came is delivered, then an error event, no `[DONE]`; the call is not repeated, and no turn is stored."""
    found = await told(relay, [*begin, end], hostile=hostile, stream=True)
    *chunks, last = found.data
    assert "".join(json.loads(data)["choices"][0]["delta"].get("content", "") for data in chunks) == text
    assert json.loads(last)["error"]["code"] == "InternalServiceError"
    assert len(hostile.posts) == 1


FAILED = "The model's server failed."
BROKE_OFF = "The answer of the model's server broke off."
OURS = "The service encountered an unexpected internal error."


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        (
            [streamed(chunk("Hel"), event({"error": {"message": f"{UPSTREAM_KEY} CUDA out of memory", "code": 500}}))],
            502,
            FAILED,
        ),
        ([streamed(chunk("Hel"), event(b"not JSON"))], 502, BROKE_OFF),
        ([streamed(chunk("Hel"), event({"choices": [{"index": 5, "delta": {"content": "x"}}]}), DONE)], 500, OURS),
        ([SSE_TO_EOF, chunk("Hel"), CLOSE], 502, BROKE_OFF),
    ],
    ids=["error event", "no JSON", "a reply too many", "no end"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_answer_is_a_failure(
    relay: Any, hostile: Hostile, script: Any, status: int, message: str, stream: bool
) -> None:
    """An error inside a stream and what is no answer end a plain answer with a 5xx, a stream with an error event."""
    found = await told(relay, script, hostile=hostile, stream=stream, api_key=UPSTREAM_KEY)
    error = json.loads(found.data[-1])["error"] if stream else found.error
    assert (found.status, error["code"]) == (200 if stream else status, "InternalServiceError")
    assert error["message"].startswith(message)
    assert UPSTREAM_KEY not in found.body.decode()
    assert len(hostile.posts) == 1


@pytest.mark.parametrize(
    ("events", "replies"),
    [
        ([chunk("Hel")], 1),
        ([chunk("Hel"), event({"id": "c", "choices": [], "usage": {"prompt_tokens": 1}})], 1),
        ([chunk("Hel", finish="")], 1),
        ([chunk("a", finish="stop"), chunk("b", index=1)], 2),
        ([chunk("a"), chunk("b", index=1, finish="stop")], 2),
    ],
    ids=["no finish reason", "usage", "an empty one", "the second of two", "the first of two"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unfinished_reply_is_no_answer(
    relay: Any, hostile: Hostile, events: Any, replies: int, stream: bool
) -> None:
    """`[DONE]` without a finish reason for each reply is half an answer: 502 or an error event, and no turn."""
    hostile.plays([streamed(*events, DONE)])
    api = await relay()
    created = await api.create()
    found = await api.chat(created["id"], stream=stream, n=replies)
    error = json.loads(found.data[-1])["error"] if stream else found.error
    assert (found.status, error["code"]) == (200 if stream else 502, "InternalServiceError")
    assert error["message"].startswith("The answer of the model's server broke off.")
    assert api.gateway.messages(created["id"]) == (system("Be kind."),)
    assert len(hostile.posts) == 1


async def test_a_server_that_says_nothing_in_time(relay: Any, hostile: Hostile) -> None:
    """A call that takes too long is a 504, and no other server is made to wait as well."""
    found = await told(relay, [STALL], hostile=hostile, timeouts=0.05)
    assert (found.status, len(hostile.posts)) == (504, 1)


async def test_the_log_says_nothing_of_keys(relay: Any, hostile: Hostile, caplog: Any) -> None:
    """Not even at DEBUG, whatever the server repeats."""
    caplog.set_level("DEBUG")
    await told(relay, [refusal(401, "", f"bad {UPSTREAM_KEY}")], hostile=hostile, api_key=UPSTREAM_KEY)
    assert UPSTREAM_KEY not in caplog.text


# --- another server ---------------------------------------------------------------------------------------------------


async def contexts(api: Any, count: int) -> list[str]:
    """Create prefixes."""
    return [(await api.create(mode="common_prefix"))["id"] for _ in range(count)]


async def spread(api: Any, *servers: Hostile, each: int) -> list[list[str]]:
    """Create prefixes until so many are at home at each server; return their ids by server."""
    homes: list[list[str]] = [[] for _ in servers]
    while min(map(len, homes)) < each:
        (context_id,) = await contexts(api, 1)
        home = homes[ranked(context_id, [server.url for server in servers])[0]]
        if len(home) < each:
            home.append(context_id)
    return homes


async def test_a_context_stays_with_its_server(relay: Any, hostile: Hostile, second: Hostile) -> None:
    """Contexts are spread over the servers, and each stays where it is."""
    hostile.plays(*[OK] * 9)
    second.plays(*[OK] * 9)
    api = await relay(hostile, second)
    homes = await spread(api, hostile, second, each=3)
    for context_id in [*homes[0], *homes[1]] * 3:
        assert (await api.chat(context_id)).status == 200
    seen = [[post.headers["x-session-id"] for post in server.posts] for server in (hostile, second)]
    assert seen == [ids * 3 for ids in homes]


@pytest.mark.parametrize("lost", [[CLOSE], [RESET], [SSE, CLOSE], [refusal(503)], [refusal(502)], [answer(b"<html>")]])
async def test_another_server_answers(relay: Any, hostile: Hostile, second: Hostile, lost: Any) -> None:
    """Where nothing of an answer came, the next server is asked: nothing is stored there, so a repeat is harmless."""
    hostile.plays(*[lost] * 3)
    second.plays(*[OK] * 8)
    api = await relay(hostile, second)
    homes = await spread(api, hostile, second, each=4)
    for context_id in [*homes[0], *homes[1]]:
        found = await api.chat(context_id, stream=True)
        assert found.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(hostile.posts) == 3, "left alone after three failures"
    assert len(second.posts) == 8


async def test_servers_that_are_gone(relay: Any, hostile: Hostile, second: Hostile, time: Time) -> None:
    """A server that is gone loses its contexts to the other; with all of them gone there is a 503 that says when."""
    second.plays(*[OK] * 8)
    api = await relay(hostile, second, clock=time)
    homes = await spread(api, hostile, second, each=4)
    ids = [*homes[0], *homes[1]]
    await hostile.__aexit__()
    assert [(await api.chat(context_id)).status for context_id in ids] == [200] * 8
    await second.__aexit__()
    for context_id in ids:
        found = await api.chat(context_id)
        assert (found.status, found.error["code"]) == (503, "InternalServiceError")
    assert found.headers["Retry-After"] == "1"


async def test_a_server_that_hung_up_is_asked_again(relay: Any, hostile: Hostile, second: Hostile) -> None:
    """A kept connection that a server closes as the request comes costs no answer, and the context stays there."""
    for server in (hostile, second):
        server.plays(*[[CLOSE], OK] * 4)
    api = await relay(hostile, second)
    homes = await spread(api, hostile, second, each=4)
    for context_id in [*homes[0], *homes[1]]:
        assert (await api.chat(context_id)).status == 200
    seen = [[post.headers["x-session-id"] for post in server.posts] for server in (hostile, second)]
    assert seen == [[context_id for context_id in ids for _ in range(2)] for ids in homes]


async def test_a_server_that_refuses_is_not_asked_twice(relay: Any, hostile: Hostile) -> None:
    """A 503 is an answer: the same server is not asked again at once."""
    hostile.plays([refusal(503)], OK)
    api = await relay()
    (context_id,) = await contexts(api, 1)
    assert (await api.chat(context_id)).status == 503
    assert len(hostile.posts) == 1


async def test_llama_cpp_gets_a_connection_for_each_call(relay: Any, hostile: Hostile) -> None:
    """Its server promises to keep a connection after a stream, and closes it."""
    hostile.plays(OK, OK)
    api = await relay(kind="llama.cpp")
    (context_id,) = await contexts(api, 1)
    assert [(await api.chat(context_id)).status for _ in range(2)] == [200, 200]
    assert len(hostile.connections) == 2


async def test_a_server_is_tried_again_after_a_pause(relay: Any, hostile: Hostile, time: Time) -> None:
    """After three failures a server is left alone for a second, then one call may try."""
    hostile.plays(*[[refusal(503)]] * 3, OK, OK)
    api = await relay(clock=time)
    (context_id,) = await contexts(api, 1)
    statuses = [(await api.chat(context_id)).status for _ in range(3)]
    assert (statuses, len(hostile.posts)) == ([503] * 3, 3)
    time.now += 1
    assert [(await api.chat(context_id)).status for _ in range(2)] == [200, 200]


async def ask(engine: UpstreamEngine, context_id: str = "ctx-1", **fields: Any) -> str:
    """Return the text of an answer, or the message of the refusal."""
    request = ChatRequest(context_id=context_id, model="m", messages=[user("Hi")], **fields)
    prompt = Prompt(request=request, context=(), context_tokens=0, question=request.messages)
    try:
        return "".join([piece.text async for batch in engine.generate(prompt) for piece in batch])
    except APIStatusError as refused:
        return refused.message


@pytest.mark.parametrize(
    ("between", "fields", "asked"),
    [([[refusal(500)]], {}, 4), ([], {"user": "\ud800"}, 3)],
    ids=["a failure of the request or the server", "a request that is not sent"],
)
async def test_what_tells_nothing_of_a_server(hostile: Hostile, between: Any, fields: Any, asked: int) -> None:
    """Neither a 500 nor a request that cannot be sent is a sign of health: the failures around count in a row."""
    hostile.plays([refusal(503)], [refusal(503)], *between, [refusal(503)])
    engine = UpstreamEngine(hostile.url, kind="openai")
    for given in ({}, {}, fields, {}):
        assert "can be reached" not in await ask(engine, **given)
    assert await ask(engine) == "No server of the model can be reached."
    assert len(hostile.posts) == asked
    await engine.aclose()


async def test_a_gateway_without_file_descriptors(hostile: Hostile, second: Hostile, naps: Naps) -> None:
    """No server is blamed for a shortage of the gateway's own, by a call or by a probe: each is called right after."""
    hostile.plays(OK)
    second.plays(OK)
    engine = UpstreamEngine([hostile.url, second.url], kind="openai", sleep=naps)
    await engine.start()
    with no_file_descriptors():
        for _ in range(4):
            assert await ask(engine) == "The gateway has no file descriptor or memory for a connection."
        for round_ in range(1, 5):
            naps.wake.set()
            await hostile.until(lambda: naps.naps == round_ + 1)  # noqa: B023  # called at once
    urls = [hostile.url, second.url]
    for place in range(2):
        assert await ask(engine, next(name for name in map(str, count()) if ranked(name, urls)[0] == place)) == "ok"
    assert [len(server.posts) for server in (hostile, second)] == [1, 1]
    await engine.aclose()


async def test_a_refusal_is_a_sign_of_health(relay: Any, hostile: Hostile) -> None:
    """A server that refuses a request is well: failures before and after are not in a row."""
    hostile.plays([refusal(503)], [refusal(503)], [refusal(429)], [refusal(503)], OK)
    api = await relay()
    (context_id,) = await contexts(api, 1)
    assert [(await api.chat(context_id)).status for _ in range(5)] == [503, 503, 429, 503, 200]


async def test_a_probe_brings_a_server_back(relay: Any, hostile: Hostile, naps: Naps, time: Time) -> None:
    """A server that is left alone is probed, with the key, and called again as soon as a probe is answered."""
    hostile.plays(*[[refusal(503)]] * 3, [answer({"data": []})], OK)
    api = await relay(clock=time, api_key=UPSTREAM_KEY)
    (context_id,) = await contexts(api, 1)
    for _ in range(3):
        await api.chat(context_id)
    naps.wake.set()
    await hostile.until(lambda: naps.naps == 2)
    probe = hostile.posts[-1]
    assert (probe.method, probe.target) == ("GET", "/v1/models")
    assert probe.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert (await api.chat(context_id)).status == 200


async def test_a_fault_of_our_own_ends_no_probes(relay: Any, hostile: Hostile, naps: Naps, caplog: Any) -> None:
    """An exception that nobody foresaw is logged, and the next probes find out that the server is gone."""
    faults = iter([RuntimeError("a fault")])

    def clock() -> float:
        if fault := next(faults, None):
            raise fault
        return 0.0

    hostile.plays(*[[refusal(500)]] * 4)
    api = await relay(clock=clock)
    for round_ in range(1, 5):
        naps.wake.set()
        await hostile.until(lambda: naps.naps == round_ + 1)  # noqa: B023  # called at once
    assert "RuntimeError: a fault" in caplog.text
    (context_id,) = await contexts(api, 1)
    assert (await api.chat(context_id)).status == 503
    assert len(hostile.posts) == 4, "the probes"


async def test_probes_find_a_server_that_is_gone(relay: Any, hostile: Hostile, second: Hostile, naps: Naps) -> None:
    """Three probes without an answer, and no call is sent there."""
    hostile.plays(*[[refusal(500)]] * 3)
    second.plays(*[[answer({"data": []})]] * 3, *[OK] * 10)
    api = await relay(hostile, second)
    for round_ in range(1, 4):
        naps.wake.set()
        await hostile.until(lambda: naps.naps == round_ + 1)  # noqa: B023  # called at once
    for context_id in await contexts(api, 10):
        assert (await api.chat(context_id)).status == 200
    assert len(hostile.posts) == 3, "the probes"
