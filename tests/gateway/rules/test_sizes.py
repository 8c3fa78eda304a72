"""The sizes of messages."""

import json
import tracemalloc
from typing import Any

import pytest

from ctxcache import codec
from ctxcache.errors import BadRequestError
from ctxcache.gateway.rules import sizes
from ctxcache.gateway.rules.sizes import SizedMessage, measure, total_memory, total_tokens, weigh
from ctxcache.models import ChatRequest, Message, user


def test_no_message_is_free() -> None:
    """An empty message counts as a token, so that storing messages is never free."""
    assert total_tokens(measure([user(""), user("abcde")], 100)) == 1 + 2


def test_tokens_already_counted_are_taken() -> None:
    """A reply, counted while the engine wrote, is not counted again; an empty reply is still a token."""
    assert SizedMessage.of(user("abcdefgh"), 7).tokens == 7
    assert SizedMessage.of(user(""), 0).tokens == 1


@pytest.mark.parametrize(
    ("calls", "tokens"),
    [
        ([{"function": {"name": "abcd", "arguments": "x" * 40}}, {"function": {"name": "你"}}], 1 + 10 + 1),
        ([], 0),
        (None, 0),
        ("calls", 0),
        ([5, {"function": 5}, {}, {"function": {"name": 5, "arguments": None}}], 0),
    ],
)
def test_tool_calls_take_room_in_the_window(calls: Any, tokens: int) -> None:
    """Names and arguments of tool calls are counted; what is no tool call counts nothing."""
    message = Message("assistant", "abcd", {"tool_calls": calls})
    assert SizedMessage.of(message).tokens == 1 + tokens


@pytest.mark.parametrize("text", ["a" * 80, "你" * 80])
def test_characters_alone_can_fill_a_window(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Messages with too many characters, or too many messages, are refused without counting a token."""
    monkeypatch.setattr(sizes, "count_tokens", None)
    for messages in ([user(text)], [user(text[:40]), user(text[40:])], [user("")] * 20):
        with pytest.raises(BadRequestError, match="The messages have 20 tokens or more") as refused:
            measure(messages, 20)
        assert (refused.value.status, refused.value.code) == (400, "OutofContextError")


def test_messages_whose_tokens_the_engine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is the same and no token is counted; as many messages as the window has tokens are refused."""
    messages = [user("a" * 800), Message("user", "x", {"name": "y" * 100})]
    memory = total_memory(measure(messages, 1000))
    monkeypatch.setattr(sizes, "count_tokens", None)
    weighed = weigh(messages, 20)
    assert (total_tokens(weighed), total_memory(weighed)) == (2, memory)
    with pytest.raises(BadRequestError, match="The messages have 20 tokens or more"):
        weigh([user("")] * 20, 20)


def test_a_window_that_characters_do_not_fill_is_counted() -> None:
    """The exact check is the window's own."""
    assert total_tokens(measure([user("你" * 79)], 20)) == 79


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a" * 1000},
        {"content": "你" * 1000},
        {"content": "\U0001f600" * 1000},
        {"content": "", "name": "x" * 10_000},
        {"content": "", "x": [[]] * 1000},
        {"content": "", "x": [{"k": 1.5}] * 1000},
        {"content": "", "x": [{str(number): {}} for number in range(1000)]},
        {"content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 5000}}] * 10},
        {"content": None, "tool_calls": [{"function": {"arguments": "{}" * 3000}}]},
        {"content": ""},
    ],
    ids=["ascii", "cjk", "astral", "name", "lists", "floats", "keys", "image", "tool_calls", "empty"],
)
def test_memory_is_what_python_takes(message: dict[str, Any]) -> None:
    """The memory of a message is at least 4/5 and at most twice what the interpreter allocates."""
    body = json.dumps({"context_id": "c", "model": "m", "messages": [{"role": "user", **message}] * 5}).encode()
    codec.decode_request(ChatRequest, body)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        request = codec.decode_request(ChatRequest, body)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * (after - before) <= total_memory(measure(request.messages, 10**6)) <= 2 * (after - before)


def test_deep_fields_are_measured() -> None:
    """Nesting as deep as a message may have does no harm."""
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    assert SizedMessage.of(Message("user", "", {"x": deep})).memory > 150 * 56
