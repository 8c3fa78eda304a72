"""Which messages of a call are the new turn of a `Conversation`. Pure.

Callers of a chat endpoint send the whole history with each call, while a conversation has it already. So a call holds
the new turn alone; or the end of the conversation's messages, word for word, and the new turn. Any other history is
refused, since the model would answer to another conversation than the caller sees.
"""

import json
from typing import Any

from ..errors import InvalidInputError
from ..models import Message

__all__ = ["is_end", "new_turn"]


def new_turn(messages: tuple[Message, ...], kept: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages that the conversation does not have.

    Args:
        messages: the call's.
        kept: the conversation's.

    Raises:
        InvalidInputError: the history is another one, or there is no new turn.
    """
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    first = answers[-1] + 1 if answers else 0
    if not answers and is_end(messages[: len(kept)], kept):
        first = len(kept)  # the beginning, which has no answer yet
    turn = messages[first:]
    if first and not is_end(messages[:first], kept):
        raise InvalidInputError.of(
            "messages",
            f"{first} messages of another history",
            "the new turn alone, or the end of the Conversation's own messages and the new turn",
        )
    if not turn or any(message.role == "system" for message in turn):
        roles = [message.role for message in turn]
        raise InvalidInputError.of("messages", roles, "a list whose new turn has a message, and no system message")
    return turn


def is_end(messages: tuple[Message, ...], kept: tuple[Message, ...]) -> bool:
    """Whether messages are the last ones kept: same roles, contents, calls and results."""
    end = kept[len(kept) - len(messages) :] if len(messages) <= len(kept) else ()
    return bool(messages) and [_compared(message) for message in messages] == [_compared(message) for message in end]


def _compared(message: Message) -> tuple[Any, ...]:
    calls = []
    for call in message.extra.get("tool_calls") or ():
        function = call.get("function") or {}
        calls.append((call.get("id"), function.get("name"), _arguments(function.get("arguments") or "{}")))
    return message.role, message.content or None, message.extra.get("tool_call_id"), calls


def _arguments(text: str) -> Any:
    """Return arguments as data, since frameworks write them anew; what is no object, as Pydantic AI sends it."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {"INVALID_JSON": text}
    return read if isinstance(read, dict) else {"INVALID_JSON": text}
