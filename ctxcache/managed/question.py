"""What is asked: a question in any of its forms, and the options of its call; checked before anything is sent."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from ..client.session import AsyncSession
from ..config import UNSET, Retry, Timeouts
from ..errors import InvalidInputError
from ..models import ChatRequest, Message, MessageLike, user

__all__ = ["Question", "read_options", "read_question"]

Question: TypeAlias = str | MessageLike | Iterable[MessageLike]

_OWN: Final = ("context_id", "model", "messages", "stream")


def read_question(question: object, model: str) -> tuple[Message, ...]:
    """Return a question as messages: a string is a user's, a message stands for itself, a list is as it is.

    Raises:
        InvalidInputError: for what is none of them.
    """
    if isinstance(question, str):
        return (user(question),)
    if isinstance(question, Message | Mapping):
        question = [question]
    if isinstance(question, bytes) or not isinstance(question, Iterable):
        raise InvalidInputError.of("question", type(question), "a string, a message or a list of messages")
    checked = ChatRequest(context_id="-", model=model, messages=question)
    return tuple(checked.messages)  # type: ignore[arg-type]  # Message objects by now


def read_options(
    session: AsyncSession, question: tuple[Message, ...], options: Mapping[str, Any], *, refused: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the options of a call in a form that can be passed to `session.chat` more than once.

    Args:
        session: the one that makes the call.
        question: what is asked with them.
        options: as the caller gave them; see `ChatParameters`.
        refused: further options that are not the caller's to say.

    Raises:
        InvalidInputError: for an option out of its range, and for what the managed object says itself: the context, the
            model, the messages, whether it is a stream. `extra_body` may not say it either, since it would win.
    """
    checked = dict(options)
    body = checked.get("extra_body")
    for name in (*_OWN, *refused):
        for field, given in ((name, checked), (f"extra_body[{name!r}]", body)):
            if isinstance(given, Mapping) and name in given:
                raise InvalidInputError.of(field, type(given[name]), "left out (the managed context sets it)")
    for name, kind in (("timeouts", Timeouts), ("retry", Retry)):
        if checked.get(name) is not None and not isinstance(checked[name], kind):
            raise InvalidInputError.of(name, checked[name], f"a {kind.__name__}, or None for the session's")
    stop = checked.get("stop", UNSET)
    if isinstance(stop, Iterable) and not isinstance(stop, str | bytes | Mapping):
        checked["stop"] = tuple(stop)  # an iterator could be read only once
    session.chat.stream(context_id="-", model="-", messages=question, **checked)  # checks; nothing is sent unopened
    return checked
