"""Which beginnings of a chat may have a context. Pure.

A *beginning* is the first messages of a chat, with at least one message after them. Three kinds may have a context:

- marked: `cache_control: {"type": "ephemeral"}` on the last message of the beginning, or on the last part of that
  message's content. Marks are for the proxy, and are not sent on.
- registered: the operator has named the model and the messages.
- learned: so many chats have begun so, where the operator allows this.

Beginnings are compared by a hash that grows message by message, so all beginnings of a chat cost one pass.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from .. import checks, codec
from ..models import Message, read_messages
from .learning import Learner

__all__ = ["Beginning", "Chat", "Registry", "read_chat", "unmark"]

_MARK: Final = "cache_control"
_EPHEMERAL: Final = "ephemeral"
_OWN: Final = ("model", "messages", "stream")


@attrs.frozen
class Beginning:
    """The first messages of a chat.

    Attributes:
        key: the hash of the model and the messages.
        length: the number of messages.
        registered: whether the operator has named this beginning; else the client has marked this one, or many chats
            have begun so.
    """

    key: bytes
    length: int
    registered: bool


@attrs.frozen
class Chat:
    """A chat that may go over a context.

    Attributes:
        model: the model's id.
        messages: all messages, without marks.
        fields: the other fields of the request; null stands for a field that was left out.
        stream: whether to stream the answer.
        beginnings: the beginnings that may have a context, the longest first.
    """

    model: str
    messages: tuple[Message, ...]
    fields: Mapping[str, Any] = attrs.field(repr=False)
    stream: bool
    beginnings: tuple[Beginning, ...]


class Registry:
    """Knows which beginnings are registered, and counts the others where these are to be learned.

    Args:
        registered: the model and the messages of each registered beginning.
        learner: counts beginnings; None learns nothing.
    """

    def __init__(
        self, registered: Iterable[tuple[str, Sequence[Message]]] = (), learner: Learner | None = None
    ) -> None:
        self._learner: Final = learner
        self._keys: Final[set[bytes]] = set()
        self._lengths: Final[dict[str, set[int]]] = {}
        for model, messages in registered:
            self._keys.update(key for key, _ in _keys(model, messages, {len(messages)}).values())
            self._lengths.setdefault(model, set()).add(len(messages))

    def beginnings(self, model: str, messages: Sequence[Message], marked: Iterable[int]) -> tuple[Beginning, ...]:
        """Return the beginnings of a chat that may have a context, the longest first.

        None ends with a message of the assistant: the service refuses a context of that kind.

        Args:
            model: the model's id.
            messages: all messages.
            marked: the lengths of the marked beginnings.
        """
        marks = set(marked)
        ends = range(1, len(messages)) if self._learner else marks | self._lengths.get(model, set())
        allowed = {end for end in ends if 0 < end < len(messages) and messages[end - 1].role != "assistant"}
        learned: set[bytes] = set()
        if self._learner is None:
            keys = _keys(model, messages, allowed)
        else:
            keys = _keys(model, messages, {*allowed, len(messages)})
            whole, _ = keys.pop(len(messages))
            learned = self._learner.learn(keys.values(), whole)
        found = (Beginning(keys[end][0], end, keys[end][0] in self._keys) for end in sorted(keys, reverse=True))
        return tuple(one for one in found if one.registered or one.length in marks or one.key in learned)


def _keys(model: str, messages: Sequence[Message], lengths: set[int]) -> dict[int, tuple[bytes, int]]:
    """Return the hash and the bytes of the beginning of each length."""
    grown, size = hashlib.blake2b(codec.encode(model), digest_size=16), 0
    keys = {}
    for place, message in enumerate(messages[: max(lengths, default=0)], 1):
        encoded = codec.encode_messages((message,))
        grown.update(b",%b" % encoded)
        size += len(encoded)
        if place in lengths:
            keys[place] = grown.digest(), size
    return keys


def unmark(messages: Any) -> tuple[Any, list[int]]:
    """Return messages as JSON without their marks, and the lengths of the marked beginnings.

    What is no message, or no mark of the known type, stays as is.

    >>> unmark([{"role": "system", "content": "Be kind.", "cache_control": {"type": "ephemeral"}}, {"role": "user"}])
    ([{'role': 'system', 'content': 'Be kind.'}, {'role': 'user'}], [1])
    """
    if not isinstance(messages, list):
        return messages, []
    plain, lengths = [], []
    for place, message in enumerate(messages, 1):
        clean, marked = _unmark_message(message)
        plain.append(clean)
        if marked:
            lengths.append(place)
    return plain, lengths


def _unmark_message(message: Any) -> tuple[Any, bool]:
    clean, marked = _without_mark(message)
    content = clean.get("content") if isinstance(clean, dict) else None
    if not isinstance(content, list) or not content:
        return clean, marked
    parts = [_without_mark(part) for part in content]
    if not any(of_part for _, of_part in parts):
        return clean, marked
    return {**clean, "content": [part for part, _ in parts]}, marked or parts[-1][1]


def _without_mark(item: Any) -> tuple[Any, bool]:
    mark = item.get(_MARK) if isinstance(item, dict) else None
    if not isinstance(mark, dict) or mark.get("type") != _EPHEMERAL:
        return item, False
    return {name: value for name, value in item.items() if name != _MARK}, True


def read_chat(body: Mapping[str, Any], marked: Iterable[int], registry: Registry) -> Chat:
    """Read the body of a request, already without marks.

    Args:
        body: the JSON.
        marked: the lengths of the marked beginnings.
        registry: knows the registered and the learned beginnings.

    Raises:
        InvalidInputError: this package cannot send such a chat; a service may be able to read the body.
    """
    messages = read_messages(body.get("messages") or ())
    model = checks.text("model", body.get("model"))
    stream = body.get("stream")
    return Chat(
        model=model,
        messages=messages,
        fields={name: value for name, value in body.items() if name not in _OWN and value is not None},
        stream=False if stream is None else checks.flag("stream", stream),
        beginnings=registry.beginnings(model, messages, marked),
    )
