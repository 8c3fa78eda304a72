"""A context as a state keeps it, and the bytes of its parts: JSON, so that any version can read them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from ... import codec
from ...models import Message, TruncationStrategy
from .sizes import SizedMessage

__all__ = ["ContextRecord", "decode_message", "decode_settings", "encode_message", "encode_settings"]

_SETTINGS: Final = ("model", "mode", "ttl")


@attrs.frozen(kw_only=True)
class ContextRecord:
    """Everything that a context is.

    Attributes:
        id, model, mode, ttl: as created; ttl in seconds.
        strategy: the strategy of a session, with every default filled in; None for a common prefix.
        initial: the messages of the create.
        history: the messages of completed turns that are not dropped, oldest first.
        deadline: when the idle timer ends, Unix seconds.
        stored: how many messages of turns were ever stored; None: as many as `history` has.
        owner: `Client.owner` of the client that created the context.
    """

    id: str
    model: str
    mode: str
    ttl: int
    strategy: TruncationStrategy | None
    initial: Sequence[SizedMessage]
    history: Sequence[SizedMessage] = ()
    deadline: float
    stored: int | None = None
    owner: str = ""


def encode_settings(record: ContextRecord) -> bytes:
    """Encode what never changes beside the messages."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in _SETTINGS}
    return codec.encode({**fields, "strategy": record.strategy, "owner": record.owner})


def decode_settings(data: bytes) -> dict[str, Any]:
    """Return the fields of a `ContextRecord` that `encode_settings` wrote.

    Raises:
        ProtocolError: for other data.
    """
    fields = codec.decode_object(data)
    strategy = fields.get("strategy")
    settings = {name: fields.get(name) for name in _SETTINGS}
    settings["owner"] = fields.get("owner", "")  # the oldest records have none
    return {**settings, "strategy": TruncationStrategy(**strategy) if isinstance(strategy, Mapping) else None}


def encode_message(sized: SizedMessage) -> bytes:
    """Encode a message and its sizes."""
    message = sized.message
    extra = {"extra": message.extra} if message.extra else {}
    fields = {"role": message.role, "content": message.content, **extra}
    return codec.encode({**fields, "tokens": sized.tokens, "memory": sized.memory})


def decode_message(data: bytes) -> SizedMessage:
    """Return the message that `encode_message` wrote.

    Raises:
        ProtocolError: for other data.
        InvalidInputError: the same.
    """
    fields = codec.decode_object(data)
    message = Message(fields["role"], fields["content"], fields.get("extra", {}))
    return SizedMessage(message, fields["tokens"], fields["memory"])
