"""A chunk of a server's stream → pieces. Pure.

Three states of cached tokens are kept apart: a server that does not tell them (no details, null, or other details
alone), 0, and n. llama.cpp tells them in `timings`, too, and did so before there were details.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ....models import ChatCompletionChunk, CompletionTokensDetails, PromptTokensDetails, Usage
from ...rules.pieces import Piece

__all__ = ["read_chunks"]


def read_chunks(chunks: Iterable[ChatCompletionChunk]) -> list[Piece]:
    """Return the pieces of some chunks: one for each choice, and one for a usage."""
    pieces = []
    for chunk in chunks:
        for place, choice in enumerate(chunk.choices):
            delta = choice.delta
            if delta.content and not (
                delta.reasoning_content or delta.tool_calls or choice.logprobs or choice.finish_reason
            ):  # the hot path
                pieces.append(Piece(text=delta.content, index=choice.index))
            else:
                pieces.append(_piece(chunk, place))
        if chunk.usage is not None:
            pieces.append(Piece(usage=_usage(chunk.usage, chunk.raw)))
    return pieces


def _piece(chunk: ChatCompletionChunk, place: int) -> Piece:
    choice = chunk.choices[place]
    delta = choice.delta
    text, reasoning = delta.content or "", delta.reasoning_content or ""
    if not text and not reasoning and b'"reasoning"' in chunk.raw_json:
        reasoning = _reasoning(chunk.raw["choices"][place].get("delta"))
    return Piece(
        text=text,
        reasoning=reasoning,
        tool_calls=delta.tool_calls or (),
        logprobs=choice.logprobs,
        finish_reason=choice.finish_reason or None,
        index=choice.index,
    )


def _reasoning(delta: Any) -> str:
    """Return the reasoning under the name that vLLM and Ollama have for it."""
    reasoning = delta.get("reasoning") if isinstance(delta, Mapping) else None
    return reasoning if isinstance(reasoning, str) else ""


def _usage(usage: Usage, raw: Mapping[str, Any]) -> Usage:
    """Return the usage without the zeros that the server did not write."""
    told = raw["usage"]
    cached = _count(told, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = _count(raw, "timings", "cache_n")
    reasoning = _count(told, "completion_tokens_details", "reasoning_tokens")
    return attrs.evolve(
        usage,
        prompt_tokens_details=None if cached is None else PromptTokensDetails(cached_tokens=cached),
        completion_tokens_details=None if reasoning is None else CompletionTokensDetails(reasoning_tokens=reasoning),
    )


def _count(fields: Any, group: str, name: str) -> int | None:
    """Return a number within an object within an object, None where there is none."""
    inner = fields.get(group) if isinstance(fields, Mapping) else None
    count = inner.get(name) if isinstance(inner, Mapping) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
