"""The pieces of an answer that an engine writes, and the JSON of a piece in a stream."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import attrs

from ... import codec
from ...models import FinishReason, ToolCall, Usage
from ...structs import struct

__all__ = ["Fragment", "Piece", "encode_delta"]

# The index of a reply, and the next text, or the JSON of further fields of a chunk's choice; None: the reply has ended.
Fragment: TypeAlias = tuple[int, str | bytes | None]


@final
@struct(kw_only=True)
class Piece:
    """A piece of an answer, from an engine that keeps `Prompt.max_tokens` and `Prompt.stop` itself.

    Attributes:
        text: the next text of the reply.
        reasoning: the next text of the reasoning (`reasoning_content`).
        tool_calls: whole calls as `ToolCall`; or fragments as in a stream, mappings with the `index` of the call. A
            mapping without `index` is a whole call.
        logprobs: the log probabilities of this piece, in OpenAI's form.
        finish_reason: why the reply ended; by default `tool_calls` after a tool call, else `stop`.
        usage: the tokens of the whole call, by the engine's own count; the last usage counts. Where the engine knows
            nothing of cached tokens, `prompt_tokens_details` is None, and the answer claims none.
        index: the reply, for an engine that writes all replies in one call.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[ToolCall | Mapping[str, Any]] = ()
    logprobs: Mapping[str, Any] | None = attrs.field(default=None, hash=False)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    index: int = 0


def encode_delta(piece: Piece, tool_calls: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode the fields of a chunk's choice: `delta`, and `logprobs` if there are any; without braces.

    Raises:
        InvalidInputError: for a value that JSON cannot express.
    """
    delta: dict[str, Any] = {}
    if piece.text:
        delta["content"] = piece.text
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if tool_calls:
        delta["tool_calls"] = tool_calls
    fields = {"delta": delta} if piece.logprobs is None else {"delta": delta, "logprobs": piece.logprobs}
    return codec.encode_fields(fields)[1:-1]
