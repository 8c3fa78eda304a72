"""The messages of a request, in every accepted form.

A message is a `Message`, a mapping with `role` and `content`, the message of an answer, or an object of another library
with such fields (attrs and dataclass objects; pydantic's, by `model_dump()`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import attrs

from .. import checks
from ..config import UNSET
from ..errors import InvalidInputError
from ..log import log
from .plain import BESIDE

__all__ = ["ROLES", "Message", "MessageLike", "MessageObject", "assistant", "read_messages", "system", "tool", "user"]

ROLES: Final = ("system", "user", "assistant", "tool")  # the first three by the API's documents
_ROLE_SHOWN: Final = 50  # characters in a log line


def _role(value: str) -> str:
    if type(value) is str and value in ROLES:
        return value
    role = checks.text("role", value)
    if role not in ROLES:
        log.debug("a message has the role %s, which is none of %s: sent as given", role[:_ROLE_SHOWN], ", ".join(ROLES))
    return role


def _content(value: str | Iterable[Mapping[str, Any]] | None) -> str | tuple[dict[str, Any], ...] | None:
    if type(value) is str or value is None:
        return value
    if isinstance(value, str):
        return checks.string("content", value)
    parts = checks.json_value("content", value) if isinstance(value, list | tuple) else None
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise InvalidInputError.of("content", value, "a string, a list of parts, or None beside tool_calls")
    return tuple(parts)


def _extra(value: Mapping[str, Any]) -> dict[str, Any]:
    if type(value) is dict and not value:
        return value
    extra = checks.json_mapping("extra", value)
    for name in ("role", "content"):
        if name in extra:
            raise InvalidInputError.of(f"extra[{name!r}]", extra[name], "left out (the message has that field itself)")
    return extra


@attrs.frozen
class Message:
    """A message of a request.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`; any other role is sent as given, for the service to judge, and
            logged at level DEBUG.
        content: the text; or a list of parts (`{"type": "text", "text": …}`, `{"type": "image_url", …}`), sent
            unchanged; or None where `extra` has `tool_calls`.
        extra: further keys of the message, sent unchanged (`tool_calls`, `tool_call_id`, `name`, …).

    Raises:
        InvalidInputError: names the field, the allowed values and the given value.
    """

    role: str = attrs.field(converter=_role)
    content: str | tuple[dict[str, Any], ...] | None = attrs.field(converter=_content)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_extra, metadata=BESIDE)

    def __attrs_post_init__(self) -> None:
        if self.content is None and not self.extra.get("tool_calls"):
            raise InvalidInputError.of("content", None, "a string, a list of parts, or None beside tool_calls")

    def __hash__(self) -> int:
        return hash((self.role, self.content if isinstance(self.content, str) else None))  # parts are dicts

    @property
    def text(self) -> str:
        """The text of the content; of a list of parts, the texts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part["text"] for part in self.content or () if isinstance(part.get("text"), str))


class MessageObject(Protocol):
    """An object that can serve as a message: from an answer, or from another library."""

    @property
    def role(self) -> str:
        """The speaker: `system`, `user`, `assistant` or `tool`."""
        ...

    @property
    def content(self) -> Any:
        """The text, or the parts."""
        ...


MessageLike: TypeAlias = Message | Mapping[str, Any] | MessageObject


def system(content: str) -> Message:
    """Make a system message."""
    return Message("system", content)


def user(content: str | Iterable[Mapping[str, Any]]) -> Message:
    """Make a user message of a text, or of a list of parts."""
    return Message("user", content)


def assistant(content: str | None, tool_calls: Iterable[Any] | None = None) -> Message:
    """Make an assistant message; `tool_calls` come from an answer, or are mappings of that form."""
    return Message("assistant", content, {} if tool_calls is None else {"tool_calls": list(tool_calls)})


def tool(content: str, *, tool_call_id: str) -> Message:
    """Make the message that answers a tool call: the result, as text, and the call's id."""
    return Message("tool", content, {"tool_call_id": checks.text("tool_call_id", tool_call_id)})


def read_messages(value: Iterable[MessageLike]) -> tuple[Message, ...]:
    """Return messages as `Message` objects.

    Raises:
        InvalidInputError: for no messages, or an item that is not a message: `messages[2].role` names the place.
    """
    kind = type(value)
    plain = kind is list or kind is tuple  # the usual cases; `isinstance` against the ABCs is slow
    if not plain and (isinstance(value, str | bytes | Mapping | Message) or not isinstance(value, Iterable)):
        raise InvalidInputError.of("messages", value, "a list of messages")
    items = tuple(value)
    if not items:
        raise InvalidInputError.of("messages", value, "a list of at least one message")
    return tuple([item if type(item) is Message else _message(index, item) for index, item in enumerate(items)])


def _message(index: int, value: object) -> Message:
    if isinstance(value, Message):
        return value
    place = f"messages[{index}]"
    fields = checks.as_mapping(value)
    if fields is None:
        raise InvalidInputError.of(place, value, "a Message, or a mapping or object with role and content")
    # Fields of an answer's message or another library's object that are None are not sent.
    extra = dict(fields) if isinstance(value, Mapping) else {k: v for k, v in fields.items() if v is not None}
    role, content = extra.pop("role", UNSET), extra.pop("content", None if extra.get("tool_calls") else UNSET)
    if not isinstance(value, Mapping):
        extra.pop("reasoning_content", None)  # the model's own, which would cost the caller tokens
    try:
        return Message(role, content, extra)
    except InvalidInputError as error:
        wrong = error.within(place)
    raise wrong
