"""The wire format of servers, as pieces. The chunks are made by hand after the servers' documentation."""

import json
from typing import Any

import pytest

from ctxcache import codec
from ctxcache.gateway import Piece
from ctxcache.gateway.engines.upstream.reading import read_chunks
from ctxcache.models import PromptTokensDetails, Usage

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
COUNTS = {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}

# An answer of vLLM with `--reasoning-parser` and `--enable-auto-tool-choice`, by its documentation.
VLLM = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning": "A sum"}, "logprobs": None, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "."}, "logprobs": None, "finish_reason": None}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {"content": "Let"},
                "logprobs": {"content": [{"token": "Let", "logprob": -0.1, "bytes": [76], "top_logprobs": []}]},
                "finish_reason": None,
                "token_ids": None,
            }
        ]
    },
    {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {"id": "chatcmpl-tool-1", "type": "function", "index": 0, "function": {"name": "add"}}
                    ]
                },
                "finish_reason": None,
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    {
        "choices": [
            {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "tool_calls", "stop_reason": None}
        ]
    },
    {"choices": [], "usage": {**COUNTS, "prompt_tokens_details": None}},
]


def read(*chunks: dict[str, Any]) -> list[Piece]:
    """Read chunks as the client decodes them."""
    return read_chunks(codec.decode_chunk(json.dumps({**HEAD, **chunk}).encode()) for chunk in chunks)


def test_an_answer_of_vllm() -> None:
    """Reasoning under both of its names, text, log probabilities, tool calls, finish reason and usage are read."""
    assert read(*VLLM) == [
        Piece(),
        Piece(reasoning="A sum"),
        Piece(reasoning="."),
        Piece(text="Let", logprobs=VLLM[3]["choices"][0]["logprobs"]),  # type: ignore[index]
        Piece(tool_calls=({"id": "chatcmpl-tool-1", "type": "function", "index": 0, "function": {"name": "add"}},)),
        Piece(tool_calls=({"index": 0, "function": {"arguments": "{}"}},)),
        Piece(finish_reason="tool_calls"),
        Piece(usage=Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)),
    ]


@pytest.mark.parametrize(
    ("told", "cached"),
    [
        ({"usage": COUNTS}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": None}}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": {}}}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": None}}}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"audio_tokens": 0}}}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": True}}}, None),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 0}}}, 0),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 8}}}, 8),
        ({"usage": COUNTS, "timings": {"cache_n": 7, "prompt_n": 2}}, 7),
        ({"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 0}}, "timings": {"cache_n": 7}}, 0),
    ],
)
def test_three_states_of_cached_tokens(told: Any, cached: int | None) -> None:
    """Absent, 0 and n are three things; llama.cpp's timings count where there are no details."""
    (piece,) = read({"choices": [], **told})
    assert piece.usage is not None
    details = None if cached is None else PromptTokensDetails(cached_tokens=cached)
    assert (piece.usage.prompt_tokens, piece.usage.prompt_tokens_details) == (9, details)
    assert piece.usage.completion_tokens_details is None


def test_reasoning_tokens() -> None:
    """Reasoning tokens are told where the server tells them."""
    (piece,) = read({"choices": [], "usage": {**COUNTS, "completion_tokens_details": {"reasoning_tokens": 2}}})
    assert piece.usage is not None
    assert piece.usage.reasoning_tokens == 2


def test_ollamas_reasoning() -> None:
    """Reasoning beside an empty content, and of the right choice."""
    deltas = [{"role": "assistant", "content": "", "reasoning": text} for text in ("a", "b")]
    choices = [{"index": index, "delta": delta} for index, delta in enumerate(deltas)]
    assert [(piece.index, piece.reasoning) for piece in read({"choices": choices})] == [(0, "a"), (1, "b")]


def test_a_word_that_is_no_field() -> None:
    """An empty delta whose chunk has `reasoning` elsewhere, or of another type, is no reasoning."""
    assert read({"choices": [{"index": 0, "delta": {}}], "reasoning": "x"}) == [Piece()]
    assert read({"choices": [{"index": 0, "delta": {"reasoning": 5}}]}) == [Piece()]
