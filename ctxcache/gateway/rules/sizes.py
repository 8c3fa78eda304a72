"""The sizes of messages, each measured once: the tokens of the window, and the bytes of memory.

Tokens are those of the text, and of the names and arguments of tool calls. Everything else of a message (parts without
text, `name`, any further field) has no tokens but takes memory, so both are bounded: the window bounds tokens, a
`Quota` memory.
"""

from collections.abc import Iterable, Sequence
from sys import getsizeof
from typing import Any, Final

from ...models import Message
from ...structs import struct
from .refusals import out_of_context
from .tokens import NARROW, count_tokens

__all__ = ["SizedMessage", "measure", "tool_call_texts", "tool_call_tokens", "total_memory", "total_tokens", "weigh"]

_OBJECTS: Final = 350  # bytes of a message's own objects


@struct  # out of the garbage collector's sight, since there may be a million
class SizedMessage:
    """A message and its sizes.

    Attributes:
        message: the message.
        tokens: the tokens of text and tool calls, at least 1: no message is free to store.
        memory: the bytes of memory that the message takes, about.
    """

    message: Message
    tokens: int
    memory: int

    @classmethod
    def of(cls, message: Message, tokens: int | None = None) -> "SizedMessage":
        """Measure a message whose tokens may be known."""
        content, extra = message.content, message.extra
        counted = count_tokens(message.text) + tool_call_tokens(extra.get("tool_calls")) if tokens is None else tokens
        memory = getsizeof(content) if isinstance(content, str) else _memory(content)
        return cls(message, max(1, counted), _OBJECTS + memory + (_memory(extra) if extra else 0))


def tool_call_tokens(calls: Any) -> int:
    """Count the tokens of tool calls in OpenAI's form; anything else counts nothing."""
    return sum([count_tokens(text) for text in tool_call_texts(calls)])


def tool_call_texts(calls: Any) -> list[str]:
    """Return the names and arguments of tool calls in OpenAI's form; nothing of anything else."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [function.get(key) for function in functions if isinstance(function, dict) for key in ("name", "arguments")]
    return [text for text in texts if isinstance(text, str)]


def measure(messages: Sequence[Message], window: int) -> tuple[SizedMessage, ...]:
    """Measure the messages of a request.

    Raises:
        APIStatusError: the messages alone fill a window of so many tokens. Where the number of characters tells, no
            token is counted.
    """
    least = max(len(messages), sum([len(message.text) for message in messages]) // NARROW)
    if least >= window:
        raise out_of_context(least, window, or_more=True)
    return tuple([SizedMessage.of(message) for message in messages])


def weigh(messages: Sequence[Message], window: int) -> tuple[SizedMessage, ...]:
    """Measure the memory of a request's messages, whose tokens the engine counts: until then each has one token.

    Raises:
        APIStatusError: there are so many messages that they fill the window.
    """
    if len(messages) >= window:
        raise out_of_context(len(messages), window, or_more=True)
    return tuple([SizedMessage.of(message, 1) for message in messages])


def total_tokens(messages: Iterable[SizedMessage]) -> int:
    """Add up the tokens."""
    return sum([message.tokens for message in messages])


def total_memory(messages: Iterable[SizedMessage]) -> int:
    """Add up the memory."""
    return sum([message.memory for message in messages])


def _memory(value: Any) -> int:
    """Add up the memory of a JSON value, without recursion."""
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        total += getsizeof(item)
        if isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
    return total
