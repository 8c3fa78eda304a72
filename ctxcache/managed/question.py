"""Questions to a managed context, in any of their forms, and options that are not the caller's to set."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from ..config import UNSET
from ..errors import InvalidInputError
from ..models import Message, MessageLike, read_messages, user

__all__ = ["Question", "read_question", "refuse_own_options"]

Question: TypeAlias = str | MessageLike | Iterable[MessageLike]

_OWN: Final = ("context_id", "model", "messages", "stream")


def read_question(question: object) -> tuple[Message, ...]:
    """Return a question as messages: a string is a user's, a message stands for itself, a list is as it is.

    Raises:
        InvalidInputError: for any other value, and for a list with an item that is not a message.
    """
    if isinstance(question, str):
        return (user(question),)
    if isinstance(question, Message | Mapping):
        return read_messages([question])
    if isinstance(question, bytes) or not isinstance(question, Iterable):
        raise InvalidInputError.of("question", type(question), "a string, a message or a list of messages")
    return read_messages(question)


def refuse_own_options(options: Mapping[str, Any], *further: str) -> None:
    """Refuse options that the managed context sets: the context, the model, the messages, whether to stream.

    Args:
        options: as the caller gave them. `extra_body` may not name such a field either, since its fields win.
        further: names of other options to refuse.

    Raises:
        InvalidInputError: names the option.
    """
    names, body = (*_OWN, *further), options.get("extra_body")
    for place, given in (("{}", options), ("extra_body[{!r}]", body)):
        if given is None or not isinstance(given, Mapping):
            continue
        for name in names:
            if given.get(name, UNSET) is not UNSET:
                raise InvalidInputError.of(
                    place.format(name), type(given[name]), "left out (the managed context sets it)"
                )
