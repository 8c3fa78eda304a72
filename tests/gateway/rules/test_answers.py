"""The JSON of the answers."""

import json
from typing import Any

import pytest

from ctxcache.gateway.rules import answers
from ctxcache.gateway.rules.reply import Reply
from ctxcache.gateway.rules.table import ContextTable
from ctxcache.models import ContextRequest, PromptTokensDetails, Usage, user

USAGE = Usage(
    prompt_tokens=5,
    completion_tokens=3,
    total_tokens=8,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=2),
)
USAGE_JSON = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def reply(text: str, limit: int = 100) -> Reply:
    """Return a reply that has ended."""
    whole = Reply((), limit)
    whole.feed(text)
    whole.end()
    return whole


def chunk(event: bytes) -> Any:
    """Return the JSON of an event, which must be one `data:` line and one empty line."""
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    return json.loads(event[6:])


@pytest.mark.parametrize("mode", ["session", "common_prefix"])
def test_a_created_context(clock: Any, mode: Any) -> None:
    """A create answers with the API reference's fields and the model; only a session has a strategy."""
    table = ContextTable({"m": 100}, clock, lambda _: 0)
    context = table.create(ContextRequest(model="m", messages=[user("abcde")], mode=mode, ttl=3600))
    strategy = {"type": "rolling_tokens", "rolling_tokens": True}
    assert json.loads(answers.context(context)) == {
        "id": "ctx-20241211104333-00000",
        "model": "m",
        "mode": mode,
        "ttl": 3600,
        **({"truncation_strategy": strategy} if mode == "session" else {}),
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 0,
            "total_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def test_the_list_of_models() -> None:
    """Models are listed in OpenAI's shape."""
    model = {"object": "model", "created": 0, "owned_by": "ctxcache"}
    assert json.loads(answers.models(["a", "b"])) == {
        "object": "list",
        "data": [{"id": "a", **model}, {"id": "b", **model}],
    }


def test_a_plain_answer() -> None:
    """Each reply is a choice with a finish reason."""
    completion = json.loads(answers.completion("id-1", 7, "m", [reply("Hi"), reply("abcdefgh", limit=1)], USAGE))
    assert completion == {
        "id": "id-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "logprobs": None, "finish_reason": "stop"},
            {
                "index": 1,
                "message": {"role": "assistant", "content": "abcd"},
                "logprobs": None,
                "finish_reason": "length",
            },
        ],
        "usage": USAGE_JSON,
    }


def test_an_error_after_the_stream_began() -> None:
    """The error's envelope is an event."""
    assert chunk(answers.error_event({"error": {"code": "x"}})) == {"error": {"code": "x"}}


@pytest.mark.parametrize("usage", [True, False])
def test_chunks(usage: bool) -> None:
    """Chunks carry role, texts and finish reason of each reply, in order, and `usage` only if asked for."""
    chunks = answers.Chunks("id-1", 7, 'm"', [reply(""), reply("")], usage=usage)
    events = chunks.events([(0, 'a"\u2028'), (1, "b"), (0, None)]) + chunks.events([(1, "c"), (1, None)])
    head = {"id": "id-1", "object": "chat.completion.chunk", "created": 7, "model": 'm"'}
    assert [chunk(event) for event in events] == [
        {
            **head,
            "choices": [{"index": index, "delta": delta, "finish_reason": reason}],
            **({"usage": None} if usage else {}),
        }
        for index, delta, reason in (
            (0, {"role": "assistant", "content": ""}, None),
            (0, {"content": 'a"\u2028'}, None),
            (1, {"role": "assistant", "content": ""}, None),
            (1, {"content": "b"}, None),
            (0, {}, "stop"),
            (1, {"content": "c"}, None),
            (1, {}, "stop"),
        )
    ]
    assert chunk(chunks.usage(USAGE)) == {**head, "choices": [], "usage": USAGE_JSON}
