"""The JSON of the answers. The chunks of a stream differ only in their text: the rest is encoded once."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ... import codec
from ...config import UNSET
from ...models import TruncationStrategy, Usage
from .reply import Fragment, Reply
from .table import ServedContext

__all__ = ["DONE", "Chunks", "completion", "context", "error_event", "models"]

DONE: Final = b"data: [DONE]\n\n"


def context(created: ServedContext) -> bytes:
    """Encode the answer of a create: the API reference's fields, and `model` (vendor documentation)."""
    strategy: TruncationStrategy | object = created.window.strategy or UNSET  # a prefix has none
    answer = {"id": created.id, "model": created.model, "mode": created.mode, "ttl": created.ttl}
    if strategy is not UNSET:
        answer["truncation_strategy"] = strategy
    return codec.encode({**answer, "usage": _usage(created.usage)})


def models(names: Iterable[str]) -> bytes:
    """Encode the list of models, in OpenAI's shape."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "ctxcache"} for name in names]
    return codec.encode({"object": "list", "data": data})


def completion(answer_id: str, created: int, model: str, replies: Iterable[Reply], usage: Usage) -> bytes:
    """Encode a plain answer."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": reply.text},
            "logprobs": None,
            "finish_reason": reply.finish_reason,
        }
        for index, reply in enumerate(replies)
    ]
    answer = {"id": answer_id, "object": "chat.completion", "created": created, "model": model, "choices": choices}
    return codec.encode({**answer, "usage": _usage(usage)})


def error_event(envelope: dict[str, Any]) -> bytes:
    """Encode an error after the stream began (vendor documentation)."""
    return b"data: " + codec.encode(envelope) + b"\n\n"


class Chunks:
    """The events of one streamed answer.

    If `usage` is asked for, the last chunk has the usage and no choices, every other chunk `usage: null` (vendor
    documentation); otherwise no chunk has the field.
    """

    def __init__(self, answer_id: str, created: int, model: str, replies: Sequence[Reply], *, usage: bool) -> None:
        """Encode the parts that all chunks share."""
        self._replies: Final = replies
        self._begun: Final[set[int]] = set()
        same = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head: Final = b"data: " + codec.encode(same)[:-1] + b',"choices":['
        self._end: Final = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._text: Final = [self._head + b'{"index":%d,"delta":{"content":' % index for index in range(len(replies))]
        self._text_end: Final = b'},"finish_reason":null}' + self._end

    def events(self, fragments: Iterable[Fragment]) -> list[bytes]:
        """Encode fragments, one event each; the first of a reply has an event for the role before it."""
        events = []
        for index, text in fragments:
            if index not in self._begun:
                self._begun.add(index)
                events.append(self._choice(index, b'{"role":"assistant","content":""}', None))
            if text is None:
                events.append(self._choice(index, b"{}", self._replies[index].finish_reason))
            else:  # the hot path
                events.append(self._text[index] + codec.encode(text) + self._text_end)
        return events

    def _choice(self, index: int, delta: bytes, finish_reason: str | None) -> bytes:
        choice = b'{"index":%d,"delta":%b,"finish_reason":%b}' % (index, delta, codec.encode(finish_reason))
        return self._head + choice + self._end

    def usage(self, usage: Usage) -> bytes:
        """Encode the usage as the last chunk."""
        return self._head + b'],"usage":' + codec.encode(_usage(usage)) + b"}\n\n"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
