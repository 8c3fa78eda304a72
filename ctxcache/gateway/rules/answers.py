"""The JSON of the answers. The chunks of a stream differ only in their text: the rest is encoded once."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ... import codec
from ...config import UNSET
from ...models import TruncationStrategy, Usage
from .pieces import Fragment
from .reply import Reply
from .served import ServedContext

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
            "message": _message(reply),
            "logprobs": reply.logprobs,
            "finish_reason": reply.finish_reason,
        }
        for index, reply in enumerate(replies)
    ]
    answer = {"id": answer_id, "object": "chat.completion", "created": created, "model": model, "choices": choices}
    return codec.encode({**answer, "usage": _usage(usage)})


def _message(reply: Reply) -> dict[str, Any]:
    """Return the message of a plain answer; `content` is null where there are tool calls alone."""
    calls = reply.tool_calls
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or (None if calls else "")}
    if reasoning := reply.reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


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
        self._choice: Final = [self._head + b'{"index":%d,' % index for index in range(len(replies))]
        self._text: Final = [choice + b'"delta":{"content":' for choice in self._choice]
        self._unfinished: Final = b',"finish_reason":null}' + self._end
        self._text_end: Final = b"}" + self._unfinished

    def events(self, fragments: Iterable[Fragment]) -> list[bytes]:
        """Encode fragments, one event each; the first of a reply has an event for the role before it."""
        events = []
        for index, text in fragments:
            if index not in self._begun:
                self._begun.add(index)
                events.append(self._choice[index] + b'"delta":{"role":"assistant","content":""}' + self._unfinished)
            if isinstance(text, str):  # the hot path
                events.append(self._text[index] + codec.encode_text(text) + self._text_end)
            elif text is None:
                reason = codec.encode(self._replies[index].finish_reason)
                events.append(b'%b"delta":{},"finish_reason":%b}%b' % (self._choice[index], reason, self._end))
            else:
                events.append(self._choice[index] + text + self._unfinished)
        return events

    def usage(self, usage: Usage) -> bytes:
        """Encode the usage as the last chunk."""
        return self._head + b'],"usage":' + codec.encode(_usage(usage)) + b"}\n\n"


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the JSON of a usage: details only where there are any, since 0 cached tokens is a claim, too."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.prompt_tokens_details is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.completion_tokens_details is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts
