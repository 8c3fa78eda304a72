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
from ..errors import InvalidInputError
from ..models import Message, read_messages
from .learning import Learner

__all__ = ["Beginning", "Chat", "Registry", "read_body", "read_chat", "unmark"]

_MARK: Final = "cache_control"
_EPHEMERAL: Final = "ephemeral"
_OWN: Final = ("model", "messages", "stream")


@attrs.frozen
class Beginning:
    """The first messages of a chat.

    Attributes:
        key: the hash of the model and the messages.
        length: the number of messages.
        size: their bytes.
        registered: whether the operator has named this beginning.
        marked: whether the client has marked this beginning.
    """

    key: bytes
    length: int
    size: int
    registered: bool
    marked: bool


@attrs.frozen
class Chat:
    """A chat that may go over a context.

    Attributes:
        model: the model's id.
        messages: all messages, without marks.
        fields: the other fields of the request; null stands for a field that was left out.
        stream: whether to stream the answer.
        beginnings: the beginnings that may have a context, the longest first; see `Registry.learn`.
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

        None ends with a message of the assistant: the service refuses a context of that kind. With a learner all are
        returned, and the whole chat: `learn` decides.

        Args:
            model: the model's id.
            messages: all messages.
            marked: the lengths of the marked beginnings.
        """
        marks = set(marked)
        ends = range(1, len(messages)) if self._learner else marks | self._lengths.get(model, set())
        allowed = {end for end in ends if 0 < end < len(messages) and messages[end - 1].role != "assistant"}
        keys = _keys(model, messages, {*allowed, len(messages)} if self._learner else allowed)
        found = (
            Beginning(key, end, size, registered=key in self._keys, marked=end in marks)
            for end, (key, size) in sorted(keys.items(), reverse=True)
        )
        return tuple(one for one in found if self._learner or one.registered or one.marked)

    def learn(self, chat: "Chat") -> "Chat":
        """Count the beginnings of a chat; return the chat with those that may have a context now."""
        if self._learner is None:
            return chat
        whole, *shorter = chat.beginnings
        learned = self._learner.learn([(one.key, one.size) for one in reversed(shorter)], whole.key)
        found = (one for one in shorter if one.registered or one.marked or one.key in learned)
        return attrs.evolve(chat, beginnings=tuple(found))


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

    Anything that is no message, or no mark of the known type, stays as is.

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


def read_body(sent: bytes, body: Mapping[str, Any], registry: Registry) -> tuple[bytes, Chat | None]:
    """Return the JSON of a chat without marks, and the chat; None for a chat that this package cannot send.

    Changes nothing that is shared, so that threads may read.

    Args:
        sent: the JSON as sent.
        body: the same, decoded.
        registry: knows which beginnings may have a context.
    """
    messages, marked = unmark(body.get("messages"))
    if messages != body.get("messages"):
        body = {**body, "messages": messages}
        sent = codec.encode_fields(body)
    try:
        return sent, read_chat(body, marked, registry)
    except InvalidInputError:
        return sent, None  # a service may be able to read the body


def read_chat(body: Mapping[str, Any], marked: Iterable[int], registry: Registry) -> Chat:
    """Read the body of a request, already without marks.

    Args:
        body: the JSON.
        marked: the lengths of the marked beginnings.
        registry: knows which beginnings may have a context.

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
