"""`UpstreamEngine` in a gateway, before servers that answer as they should."""

import asyncio
from typing import Any

import pytest

from ctxcache.gateway import UpstreamEngine
from ctxcache.models import system
from tests.hostile import DONE, SSE, STALL, Hostile, chunk, event, pieces, refusal, streamed

from .conftest import UPSTREAM_KEY, Naps

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 8},
}
HELLO = (
    chunk(""),
    chunk("Hel"),
    chunk("lo"),
    chunk(finish="stop"),
    event({"id": "c", "choices": [], "usage": USAGE}),
    DONE,
)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_a_plain_and_a_streamed_answer(relay: Any, hostile: Hostile) -> None:
    """Both come from a streamed call: text, finish reason and the server's usage, under the gateway's ids and model."""
    hostile.plays([streamed(*HELLO)], [streamed(*HELLO)])
    api = await relay()
    created = await api.create(mode="common_prefix")
    plain = (await api.chat(created["id"])).json
    assert plain["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert (plain["choices"][0]["finish_reason"], plain["usage"]) == ("stop", USAGE)
    assert plain["model"] == "Doubao-1.5-pro-32k"
    assert plain["id"] != "c"
    stream = await api.chat(created["id"], stream=True, stream_options={"include_usage": True})
    assert (
        "".join(choice["delta"].get("content", "") for data in stream.chunks for choice in data["choices"]) == "Hello"
    )
    assert stream.chunks[-1]["usage"] == USAGE
    assert len(hostile.connections) == 1, "the connection is kept"
    assert hostile.posts[0].headers["authorization"] == "Bearer none", "there is no key"


async def test_what_a_server_is_sent(relay: Any, hostile: Hostile) -> None:
    """The context's messages and the question, every further field as it came, and nothing of the context's own."""
    hostile.plays([streamed(*HELLO)])
    api = await relay(api_key=UPSTREAM_KEY, model_names={"Doubao-1.5-pro-32k": "Qwen/Qwen3-8B"})
    created = await api.create()
    given = {"temperature": 0.5, "tools": TOOLS, "seed": 7, "stop": "x", "max_tokens": 50, "user": "u", "top_p": None}
    assert (await api.chat(created["id"], "Hi", **given, top_k=None)).status == 200
    sent = hostile.posts[0]
    assert sent.target == "/v1/chat/completions"
    assert sent.json == {
        "model": "Qwen/Qwen3-8B",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "tools": TOOLS,
        "seed": 7,
        "stop": ["x"],
        "max_tokens": 50,
        "user": "u",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert sent.headers["x-session-id"] == sent.headers["x-smg-routing-key"] == created["id"]
    assert sent.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert api.gateway.api_key not in str(sent.headers)


async def test_limits_of_the_window(relay: Any, hostile: Hostile) -> None:
    """The client's limit is cut to the room in the window; without one, the server's limit counts."""
    hostile.plays(*[[streamed(*HELLO)] for _ in range(3)])
    api = await relay(gateway={"models": {"Doubao-1.5-pro-32k": 20}})
    created = await api.create(mode="common_prefix")  # 2 tokens
    for limit in ({"max_tokens": 3000}, {"max_completion_tokens": 3000}, {}):
        await api.chat(created["id"], "abcd", **limit)
    limits = [{name: value for name, value in post.json.items() if "max" in name} for post in hostile.posts]
    assert limits == [{"max_tokens": 17}, {"max_completion_tokens": 17}, {}]


async def test_tools_reasoning_logprobs_and_several_replies(relay: Any, hostile: Hostile) -> None:
    """All of them pass in both directions; `n` replies are asked for in one call."""
    token = {"content": [{"token": "a", "logprob": -1.0}]}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    deltas = [
        {"index": 0, "delta": {"role": "assistant", "content": "", "reasoning_content": "Hm. "}, "logprobs": None},
        {"index": 1, "delta": {"role": "assistant", "reasoning": "So. "}},
        {"index": 1, "delta": {"content": "a"}, "logprobs": token},
        {"index": 0, "delta": {"tool_calls": [call]}},
        {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
        {"index": 1, "delta": {}, "finish_reason": "length"},
    ]
    hostile.plays([streamed(*[event({"id": "c", "choices": [delta]}) for delta in deltas], DONE)])
    api = await relay()
    created = await api.create(mode="common_prefix")
    answer = (await api.chat(created["id"], n=2, logprobs=True, top_logprobs=1, tools=TOOLS)).json
    first, second = answer["choices"]
    assert first["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert (first["message"]["reasoning_content"], first["finish_reason"]) == ("Hm. ", "tool_calls")
    assert second["message"] == {"role": "assistant", "content": "a", "reasoning_content": "So. "}
    assert (second["logprobs"], second["finish_reason"]) == (token, "length")
    assert "prompt_tokens_details" not in answer["usage"], "nothing was told of a cache"
    sent = hostile.posts[0].json
    assert (len(hostile.posts), sent["n"], sent["logprobs"], sent["top_logprobs"]) == (1, 2, True, 1)


async def test_a_session_goes_on_with_tool_results(relay: Any, hostile: Hostile) -> None:
    """The next turn brings the server the whole history, tool calls and results included."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calling = event(
        {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    )
    hostile.plays([streamed(calling, DONE)], [streamed(*HELLO)])
    api = await relay()
    created = await api.create()
    await api.chat(created["id"], "Hi", tools=TOOLS)
    result = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
    assert (await api.chat(created["id"], messages=[result], tools=TOOLS)).status == 200
    del call["index"]
    assert hostile.posts[1].json["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        result,
    ]


async def test_a_server_that_does_not_know_n(relay: Any, hostile: Hostile) -> None:
    """Fewer replies than were asked for are no answer."""
    hostile.plays([streamed(*HELLO)])
    api = await relay()
    created = await api.create()
    answer = await api.chat(created["id"], n=3)
    assert (answer.status, answer.error["param"]) == (400, "n")
    assert "1 of 3 replies" in answer.error["message"]
    assert api.gateway.messages(created["id"]) == (system("Be kind."),)


async def test_a_client_that_leaves_takes_the_call_along(relay: Any, hostile: Hostile) -> None:
    """The connection to the server is closed when the client closes its own, in mid-answer and before the answer."""
    hostile.plays([SSE, *pieces(chunk("Hel")), STALL], [STALL])
    api = await relay()
    created = await api.create()
    async with api.open(created["id"], stream=True) as response:
        await response.content.readany()
        assert len(hostile.open) == 1
    await hostile.until(lambda: not hostile.open)
    waiting = asyncio.ensure_future(api.chat(created["id"]))
    await hostile.until(lambda: len(hostile.posts) == 2)
    waiting.cancel()
    await hostile.until(lambda: not hostile.open)
    hostile.plays([streamed(*HELLO)])
    answer = await api.chat(created["id"])
    while answer.status == 403:  # the gateway notices a moment later
        answer = await api.chat(created["id"])
    assert answer.status == 200, "the session is free"


# --- warming ----------------------------------------------------------------------------------------------------------


async def test_a_create_warms_the_server(relay: Any, hostile: Hostile) -> None:
    """One token is asked for, on the context's messages and under the context's id, before the create is answered."""
    hostile.plays([streamed(*HELLO)])
    api = await relay(warm=True, kind="vllm")
    created = await api.create(mode="common_prefix")
    sent = hostile.posts[0]
    assert sent.headers["x-session-id"] == created["id"]
    salt = sent.json["cache_salt"]
    assert sent.json == {
        "model": "Doubao-1.5-pro-32k",
        "messages": [{"role": "system", "content": "Be kind."}],
        "max_tokens": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_salt": salt,
    }
    hostile.plays([streamed(*HELLO)])
    await api.chat(created["id"])
    assert hostile.posts[1].json["cache_salt"] == salt, "the same prompt cache"


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([refusal(404, "model_not_found", "The model `x` does not exist.")], 404, "InvalidEndpointOrModel.NotFound"),
        ([refusal(400, "", "no", type="exceed_context_size_error")], 400, "OutofContextError"),
    ],
)
async def test_warming_that_tells_of_the_next_chat(
    relay: Any, hostile: Hostile, script: Any, status: int, code: str
) -> None:
    """A model that the server lacks and a context too long for it fail the create."""
    hostile.plays(script)
    api = await relay(warm=True)
    body = {"model": "Doubao-pro-32k", "messages": [{"role": "user", "content": "x"}]}
    answer = await api.post("/context/create", body)
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_any_other_failure_leaves_a_context_cold(relay: Any, hostile: Hostile) -> None:
    """A create works while the servers fail, or where their template wants a question."""
    hostile.plays([refusal(503)], [refusal(400, "", "roles must alternate")], [streamed(*HELLO)])
    api = await relay(warm=True)
    await api.create()
    created = await api.create()
    assert (await api.chat(created["id"])).status == 200


# --- the engine itself ------------------------------------------------------------------------------------------------


async def test_it_starts_again_after_its_end(relay: Any, hostile: Hostile) -> None:
    """A closed gateway is started again, and its engine calls the servers anew."""
    hostile.plays([streamed(*HELLO)], [streamed(*HELLO)])
    api = await relay()
    created = await api.create(mode="common_prefix")
    assert (await api.chat(created["id"])).status == 200
    await api.gateway.aclose()
    await hostile.until(lambda: not hostile.open)
    await api.gateway.start()
    assert (await api.chat(created["id"])).status == 200


async def test_it_probes_once_however_often_it_is_started(naps: Naps) -> None:
    """A second start changes nothing; an engine that was never started may be closed."""
    engine = UpstreamEngine("http://127.0.0.1:1/v1", sleep=naps)
    await engine.aclose()
    for _ in range(2):
        await engine.start()
        await asyncio.sleep(0)
    assert naps.naps == 1
    await engine.aclose()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"upstreams": []}, "upstreams"),
        ({"upstreams": 5}, "upstreams"),
        ({"upstreams": "ftp://x/v1"}, "upstreams"),
        ({"upstreams": ["http://a/v1", "http://a/v1/"]}, "upstreams"),
        ({"upstreams": "http://api.example.com/v1", "api_key": UPSTREAM_KEY}, "upstreams"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "with space"}, "api_key"),
        ({"api_key": 5}, "api_key"),
        ({"kind": "tgi"}, "kind"),
        ({"model_names": ["a"]}, "model_names"),
        ({"model_names": {"a": ""}}, "model_names['a']"),
        ({"timeouts": "5"}, "timeouts"),
        ({"probe_seconds": 0}, "probe_seconds"),
        ({"warm": 1}, "warm"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], field: str) -> None:
    """An argument out of range is refused by name, and no error shows the key."""
    with pytest.raises(ValueError, match="must be") as raised:
        UpstreamEngine(**{"upstreams": "http://127.0.0.1:1/v1", **wrong})
    assert raised.value.field == field  # type: ignore[attr-defined]
    assert UPSTREAM_KEY not in str(raised.value)


def test_the_key_never_prints() -> None:
    """Neither the engine nor its servers show the key."""
    engine = UpstreamEngine("http://127.0.0.1:1/v1/", api_key=UPSTREAM_KEY)
    assert repr(engine) == "UpstreamEngine(['http://127.0.0.1:1/v1'])"
    assert UPSTREAM_KEY not in repr(vars(engine))
