"""The service's answers in OpenAI's shape."""

import json
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatCompletion,
    CtxCacheError,
    ProtocolError,
    RateLimitError,
    SessionError,
    codec,
)
from ctxcache.proxy import answers

CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]
CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 5,
    "model": "m",
    "choices": [{"index": 0, "delta": {}}],
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def completion(body: dict[str, Any]) -> tuple[bytes, bytes]:
    """An answer as received, and as passed back."""
    data = json.dumps(body).encode()
    return data, answers.completion(codec.decode_completion(data), "m", "made-up", 7)


def test_complete_answer_goes_on_as_received() -> None:
    """An answer with every field and the model as asked is not encoded anew."""
    body = {"id": "c", "object": "chat.completion", "created": 5, "model": "m", "choices": CHOICES, "odd": [1.50]}
    received, passed = completion(body)
    assert passed == received


def test_incomplete_answer_is_completed() -> None:
    """Missing fields are filled in, the model is the one asked for, and every other field stays."""
    _, passed = completion({"id": "", "model": "m-240115", "choices": CHOICES, "odd": None})
    needed = {"id": "made-up", "object": "chat.completion", "created": 7, "model": "m"}
    assert json.loads(passed) == {**needed, "choices": CHOICES, "odd": None}


def test_folded_answer() -> None:
    """An answer without JSON of its own, folded from a stream, is one of OpenAI's, too."""
    passed = json.loads(answers.completion(ChatCompletion(), "m", "made-up", 7))
    assert {"id": "made-up", "created": 7, "model": "m", "choices": []}.items() <= passed.items()


def events(*chunks: dict[str, Any], usage: bool) -> bytes:
    """Chunks that came together, as passed back."""
    decoded = [codec.decode_chunk(json.dumps(chunk).encode()) for chunk in chunks]
    return answers.Chunks("m", "made-up", 7, usage=usage).encode(decoded)


def test_complete_chunks_go_on_as_received() -> None:
    """Chunks with every field are not encoded anew."""
    chunk = {**CHUNK, "odd": 1.50}
    assert events(chunk, chunk, usage=True) == b"data: %b\n\n" % json.dumps(chunk).encode() * 2


def test_incomplete_chunks_are_completed() -> None:
    """Chunks without id and object get them, the same for all, and the model as asked."""
    chunk = {"model": "other", "choices": CHUNK["choices"]}
    data = [json.loads(event[6:]) for event in events(chunk, chunk, usage=False).decode().split("\n\n")[:-1]]
    assert data == [{**CHUNK, "id": "made-up", "created": 7}] * 2


@pytest.mark.parametrize("missing", ["id", "object", "created", "model"])
@pytest.mark.parametrize("together", [True, False])
def test_each_chunk_is_completed(missing: str, together: bool) -> None:
    """A chunk that lacks a field which others have gets the field, as the first chunk has it."""
    odd = {**CHUNK, "choices": [{"index": 0, "delta": {"content": missing}}]}
    del odd[missing]
    decoded = [codec.decode_chunk(json.dumps(chunk).encode()) for chunk in (CHUNK, odd, CHUNK)]
    chunks = answers.Chunks("m", "made-up", 7, usage=True)
    passed = chunks.encode(decoded) if together else b"".join(chunks.encode([chunk]) for chunk in decoded)
    first, second, third = [json.loads(event[6:]) for event in passed.decode().split("\n\n")[:-1]]
    assert first == third == CHUNK
    assert second == {**CHUNK, **odd}


def test_usage_is_for_those_who_asked() -> None:
    """Without `include_usage` a chunk loses its usage, and a chunk that has nothing else is left out."""
    last = {**CHUNK, "choices": [], "usage": USAGE}
    both = {**CHUNK, "usage": USAGE}
    assert events(CHUNK, both, last, usage=True).count(b"total_tokens") == 2
    passed = events(CHUNK, both, last, usage=False)
    assert [json.loads(event[6:]) for event in passed.decode().split("\n\n")[:-1]] == [CHUNK, CHUNK]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimitError("x", status=429), 429),
        (APIStatusError("an error in an answer of status 200", status=200), 502),
        (APIStatusError("x"), 502),
        (APITimeoutError.of("head", 5), 504),
        (APIConnectionError("x"), 502),
        (ProtocolError("x"), 502),
        (SessionError("closed"), 503),
    ],
)
def test_statuses(error: CtxCacheError, status: int) -> None:
    """An error of the service keeps its status; every other says whether a repeat may help."""
    assert answers.status(error) == status


def test_envelope() -> None:
    """The envelope has the service's own words; of an error without any, the message."""
    body = {"error": {"message": "its words"}}
    told = json.loads(answers.envelope(RateLimitError("429 X: its words", status=429, code="X", type="T", body=body)))
    assert told == {"error": {"message": "its words", "type": "T", "param": None, "code": "X"}}
    told = json.loads(answers.envelope(APIConnectionError("no route")))
    assert told == {"error": {"message": "no route", "type": "APIConnectionError", "param": None, "code": None}}
    assert answers.error_event(APIConnectionError("x")).startswith(b'data: {"error":')
