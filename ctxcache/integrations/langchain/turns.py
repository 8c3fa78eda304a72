"""Which messages of a list are the new turn of a `Conversation`. Pure.

LangChain's callers pass the whole history with each call, while the service keeps it. So a list may be

- the new turn alone: messages without an answer among them; or
- the conversation so far, or its last messages, word for word as the `Conversation` has them, and the new turn after
  the last answer. Only the new turn is sent.

The conversation's own system messages may lead both, since prompt templates repeat them: they are not sent again. Any
other history is refused: the model would answer to another conversation than the caller sees.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from ...errors import InvalidInputError, TurnInDoubtError
from ...managed import Conversation
from ...models import Message

__all__ = ["new_turn"]


def new_turn(conversation: Conversation, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages to ask.

    Raises:
        InvalidInputError: the list has a history that is not the conversation's, or ends with an answer.
        TurnInDoubtError: the last turn asked the same and its answer broke off: asked again, as LangChain's
            `with_retry` does, the question would be in the conversation twice.
    """
    new = messages[_history(conversation, messages) :]
    if not new or new[-1].role == "assistant":
        roles = [message.role for message in messages[-3:]]
        raise InvalidInputError.of("messages", roles, "a list that ends with the new turn")
    _refuse_broken(conversation, new)
    return new


def _history(conversation: Conversation, messages: tuple[Message, ...]) -> int:
    """Return the number of messages in front of the new turn."""
    system = tuple(takewhile(lambda message: message.role == "system", conversation.messages))
    first = len(system) if _same(messages[: len(system)], system) else 0
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        return first if first < len(messages) else 0
    given = messages[first : answers[-1] + 1]
    if _same(given, conversation.messages[-len(given) :]):
        return answers[-1] + 1
    allowed = "the new turn alone, or the conversation so far, as in Conversation.messages, and the new turn"
    raise InvalidInputError.of("messages", f"{len(given)} messages of another history", allowed)


def _refuse_broken(conversation: Conversation, new: tuple[Message, ...]) -> None:
    last = conversation.transcript[-1] if conversation.transcript else None
    if last is not None and not last.finished and _same(last.question, new):
        context = conversation.context
        raise TurnInDoubtError(
            "the last turn asked the same, and its answer broke off: Conversation.resync() drops that turn",
            context_id=None if context is None else context.id,
        )


def _same(some: Sequence[Message], others: Sequence[Message]) -> bool:
    return len(some) == len(others) and all(map(_equal, some, others))


def _equal(one: Message, other: Message) -> bool:
    return (
        one.role == other.role
        and (one.content or "") == (other.content or "")
        and one.extra.get("tool_call_id") == other.extra.get("tool_call_id")
        and _calls(one.extra.get("tool_calls") or ()) == _calls(other.extra.get("tool_calls") or ())
    )


def _calls(calls: Iterable[Any]) -> list[Any]:
    """Return tool calls as values to compare: the arguments as data, since frameworks write them anew."""
    return [(call["id"], call["function"]["name"], _data(call["function"]["arguments"])) for call in calls]


def _data(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments
