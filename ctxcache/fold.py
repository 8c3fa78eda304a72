"""Merges the chunks of a stream into a completion. Pure and linear: fragments are collected, and joined on demand."""

import json
from collections.abc import Sequence
from typing import Any

from .models import AssistantMessage, ChatCompletion, ChatCompletionChunk, Choice, FunctionCall, ToolCall, Usage
from .tool_calls import merge_fragments, merge_objects

__all__ = ["Fold", "read_tool_call"]


class _Reply:
    """The fragments of one choice."""

    __slots__ = ("content", "finish_reason", "logprobs", "reasoning", "role", "tool_calls")

    def __init__(self) -> None:
        self.role = "assistant"
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: list[tuple[dict[str, Any], ...]] = []  # of each chunk
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason: str | None = None

    def choice(self, index: int) -> Choice:
        message = AssistantMessage(
            role=self.role,
            content="".join(self.content) if self.content else None,
            reasoning_content="".join(self.reasoning) if self.reasoning else None,
            tool_calls=tuple(map(read_tool_call, merge_fragments(self.tool_calls))) if self.tool_calls else None,
        )
        logprobs = merge_objects(self.logprobs) if self.logprobs else None
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
        usage: the newest usage that a chunk carried, or None.
    """

    __slots__ = ("_created", "_expected", "_id", "_model", "_named", "_replies", "_service_tier", "usage")

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._replies: dict[int, _Reply] = {}
        self._id = self._model = ""
        self._created = 0
        self._named = False
        self._service_tier: str | None = None
        self.usage: Usage | None = None

    def add(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Add the next chunks."""
        if not self._named:
            self._note_names(chunks)
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
                    reply.tool_calls.append(delta.tool_calls)
                if choice.logprobs:
                    reply.logprobs.append(choice.logprobs)
                if choice.finish_reason:  # some services send "" until the end
                    reply.finish_reason = choice.finish_reason

    def _note_names(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Note the first id, model and time that are not empty: Azure's first chunk, for filter results, has none."""
        for chunk in chunks:
            self._id = self._id or chunk.id
            self._model = self._model or chunk.model
            self._created = self._created or chunk.created
        self._named = bool(self._id and self._model and self._created)

    @property
    def answered(self) -> bool:
        """Whether any choice has a finish reason, text, reasoning or a tool call."""
        return any(
            reply.finish_reason is not None or any(reply.content) or any(reply.reasoning) or reply.tool_calls
            for reply in self._replies.values()
        )

    @property
    def finished(self) -> bool:
        """Whether every expected choice has a finish reason."""
        replies = self._replies.values()
        return len(replies) >= self._expected and all(reply.finish_reason is not None for reply in replies)

    def completion(self, **ids: Any) -> ChatCompletion:
        """Build the completion so far, with choices in order of index; `ids` are further fields."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=tuple(reply.choice(index) for index, reply in sorted(self._replies.items())),
            usage=self.usage,
            service_tier=self._service_tier,
            **ids,
        )


def read_tool_call(merged: dict[str, Any]) -> ToolCall:
    """Read a whole call; fields that are missing or of another type become ""."""
    function = merged.get("function")
    name, arguments = (function.get(key) for key in ("name", "arguments")) if isinstance(function, dict) else ("", "")
    if isinstance(arguments, dict | list):
        arguments = json.dumps(arguments)  # Ollama
    id_, kind = merged.get("id"), merged.get("type")
    return ToolCall(
        id=id_ if isinstance(id_, str) else "",
        type=kind if isinstance(kind, str) and kind else "function",
        function=FunctionCall(
            name=name if isinstance(name, str) else "", arguments=arguments if isinstance(arguments, str) else ""
        ),
    )
