"""Merges the chunks of a stream into one completion. Pure and linear: fragments are collected, and joined on demand."""

from collections.abc import Sequence
from typing import Any

from .models import AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, Usage

__all__ = ["Fold"]


class _Reply:
    """The fragments of one choice."""

    __slots__ = ("content", "finish_reason", "logprobs", "reasoning", "role", "tool_calls")

    def __init__(self) -> None:
        self.role = "assistant"
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason: str | None = None

    def choice(self, index: int) -> Choice:
        message = AssistantMessage(
            role=self.role,
            content="".join(self.content) if self.content else None,
            reasoning_content="".join(self.reasoning) if self.reasoning else None,
            tool_calls=_tool_calls(self.tool_calls) if self.tool_calls else None,
        )
        logprobs = _merge(self.logprobs) if self.logprobs else None
        return Choice(index=index, message=message, finish_reason=self.finish_reason, logprobs=logprobs)


class Fold:
    """The completion so far.

    >>> from ctxcache.models import ChoiceDelta, ChunkChoice
    >>> def chunk(text, finish_reason=None):
    ...     choice = ChunkChoice(delta=ChoiceDelta(content=text), finish_reason=finish_reason)
    ...     return ChatCompletionChunk(choices=(choice,))
    >>> fold = Fold()
    >>> fold.add([chunk("Hel"), chunk("lo")])
    >>> fold.completion().text, fold.finished
    ('Hello', False)
    >>> fold.add([chunk("!", "stop")])
    >>> fold.completion().text, fold.finished
    ('Hello!', True)

    Args:
        expected: the number of choices that were asked for (`n`).

    Attributes:
        usage: the usage of the newest chunk that carried one, else None.
    """

    __slots__ = ("_expected", "_first", "_replies", "_service_tier", "usage")

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._replies: dict[int, _Reply] = {}
        self._first: ChatCompletionChunk | None = None
        self._service_tier: str | None = None
        self.usage: Usage | None = None

    def add(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Add the next chunks."""
        if self._first is None and chunks:
            self._first = chunks[0]
        replies = self._replies
        for chunk in chunks:
            if chunk.usage is not None:
                self.usage = chunk.usage
            if chunk.service_tier is not None:
                self._service_tier = chunk.service_tier
            for choice in chunk.choices:
                reply = replies.get(choice.index)
                if reply is None:
                    reply = replies[choice.index] = _Reply()
                delta = choice.delta
                if delta.content is not None:
                    reply.content.append(delta.content)
                if delta.role:
                    reply.role = delta.role
                if delta.reasoning_content is not None:
                    reply.reasoning.append(delta.reasoning_content)
                if delta.tool_calls:
                    reply.tool_calls.extend(delta.tool_calls)
                if choice.logprobs:
                    reply.logprobs.append(choice.logprobs)
                if choice.finish_reason:  # some services send "" until the end
                    reply.finish_reason = choice.finish_reason

    @property
    def finished(self) -> bool:
        """Whether every expected choice has a finish reason."""
        replies = self._replies.values()
        return len(replies) >= self._expected and all(reply.finish_reason is not None for reply in replies)

    def completion(self, **ids: Any) -> ChatCompletion:
        """Build the completion so far, with choices in order of index; `ids` are further fields."""
        first = self._first or ChatCompletionChunk()
        return ChatCompletion(
            id=first.id,
            created=first.created,
            model=first.model,
            choices=tuple(reply.choice(index) for index, reply in sorted(self._replies.items())),
            usage=self.usage,
            service_tier=self._service_tier,
            **ids,
        )


def _tool_calls(fragments: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    by_index: dict[int, list[dict[str, Any]]] = {}
    for fragment in fragments:
        index = fragment.get("index")
        by_index.setdefault(index if isinstance(index, int) else 0, []).append(fragment)
    return tuple(_merge(by_index[index]) for index in sorted(by_index))


_NOT_JOINED = frozenset({"id", "type", "index"})


def _merge(fragments: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge objects: strings and lists are joined, objects merged; of other values the last one counts."""
    merged: dict[str, Any] = {}
    values: dict[str, list[Any]] = {}
    for fragment in fragments:
        for name, value in fragment.items():
            merged[name] = value
            if value is not None:
                values.setdefault(name, []).append(value)
    for name, found in values.items():
        if name in _NOT_JOINED:
            merged[name] = found[-1]
        elif all(isinstance(value, str) for value in found):
            merged[name] = "".join(found)
        elif all(isinstance(value, list) for value in found):
            merged[name] = [item for value in found for item in value]
        elif all(isinstance(value, dict) for value in found):
            merged[name] = _merge(found)
        else:
            merged[name] = found[-1]
    return merged
