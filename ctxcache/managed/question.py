"""What is asked: a question in any of its forms, and the options of a turn; checked before anything is sent."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from ..config import UNSET, Retry, Timeouts
from ..errors import InvalidInputError
from ..models import ChatRequest, Message, MessageLike, user
from ..session import AsyncSession

__all__ = ["Question", "check_options", "read_question"]

Question: TypeAlias = str | MessageLike | Iterable[MessageLike]

_OWN: Final = ("context_id", "model", "messages", "serialize", "stream")


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


def check_options(session: AsyncSession, question: tuple[Message, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a turn, ready to be passed to `session.chat`, more than once if need be.

    Raises:
        InvalidInputError: for one out of its range, and for what a conversation cannot have: more than one answer, a
            turn that may be repeated, another context, model or messages than its own.
    """
    checked = {name: value for name, value in options.items() if name != "repeatable"}
    body = checked.get("extra_body")
    inside: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    for name in _OWN:
        if name in checked:
            raise InvalidInputError.of(name, type(checked[name]), "nothing: the conversation itself says it")
        if name in inside:
            raise InvalidInputError.of(f"extra_body[{name!r}]", type(inside[name]), "nothing: the conversation says it")
    for field, n in (("n", checked.get("n", UNSET)), ("extra_body['n']", inside.get("n"))):
        if n not in (UNSET, None, 1):
            raise InvalidInputError.of(field, n, "1: a conversation goes on from one answer")
    if options.get("repeatable", False) is not False:
        raise InvalidInputError.of("repeatable", options["repeatable"], "False: a turn sent twice may be stored twice")
    for name, kind in (("timeouts", Timeouts), ("retry", Retry)):
        if checked.get(name) is not None and not isinstance(checked[name], kind):
            raise InvalidInputError.of(name, checked[name], f"a {kind.__name__}, or None for the session's")
    stop = checked.get("stop", UNSET)
    if isinstance(stop, Iterable) and not isinstance(stop, str | bytes | Mapping):
        checked["stop"] = tuple(stop)  # an iterator could be read only once
    session.chat.stream(context_id="-", model="-", messages=question, **checked)  # checks; nothing is sent unopened
    return checked
