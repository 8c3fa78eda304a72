"""JSON ↔ models. Only this file and `structs` import msgspec.

Reading goes through msgspec, straight from bytes into attrs classes. An answer that msgspec refuses is read once more
by `tolerant`, since the answer was paid for.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import attrs
import msgspec

from . import checks, tolerant
from .config import UNSET
from .errors import InvalidInputError, ProtocolError
from .models import ROLES, ChatCompletion, ChatCompletionChunk, ChatRequest, Context, ContextRequest, Message
from .models.plain import to_plain
from .response_head import NO_HEAD, ResponseHead
from .structs import force

__all__ = [
    "decode_chunk",
    "decode_completion",
    "decode_context",
    "decode_json",
    "decode_object",
    "decode_request",
    "encode",
    "encode_fields",
    "encode_messages",
    "encode_text",
]

T = TypeVar("T")
RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)

# msgspec's refusals: bytes that are not JSON, or a wrong type; deep nesting ends in a RecursionError.
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
_SHOWN_BODY: Final = 2000
NO_IDS: Mapping[str, str | None] = {}

_encoder: Final = msgspec.json.Encoder()
_any: Final = msgspec.json.Decoder()

encode_text: Final[Callable[[str], bytes]] = _encoder.encode  # a text that UTF-8 can carry, as JSON: `encode`, at once


# --- writing ----------------------------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Encode models and plain data as JSON; fields that are `UNSET` are left out.

    Raises:
        InvalidInputError: for a value that JSON cannot express.
    """
    try:
        return _encoder.encode(to_plain(value))
    except _UNENCODABLE as error:
        problem = f"{type(error).__name__}: {error}"
    if isinstance(value, ContextRequest):
        _find_fault(value.messages)
    raise InvalidInputError(f"body must be JSON: {problem}", field="body", allowed="JSON")


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """Encode fields in plain types as a JSON object: `encode` without the search for models.

    Raises:
        InvalidInputError: for a value that JSON cannot express; names the field.
    """
    try:
        return _encoder.encode(fields)
    except _UNENCODABLE:
        pass
    return _encoder.encode(checks.json_fields(fields))


def encode_messages(messages: Iterable[Message]) -> bytes:
    """Encode messages as JSON objects with commas between, without `[` and `]`, so that more can be put in front.

    Raises:
        InvalidInputError: for text that UTF-8 cannot carry; names the place: `messages[1].content`.
    """
    try:
        return _encoder.encode([_plain_message(message) for message in messages])[1:-1]
    except _UNENCODABLE as error:
        problem = f"{type(error).__name__}: {error}"
    _find_fault(messages)
    raise InvalidInputError(f"messages must be JSON: {problem}", field="messages", allowed="JSON")


def _find_fault(messages: Iterable[Message]) -> None:
    for index, message in enumerate(messages):
        for name, value in _plain_message(message).items():
            checks.json_value(f"messages[{index}].{name}", value)


def _plain_message(message: Message) -> dict[str, Any]:
    plain = {"role": message.role, "content": message.content}
    return {**plain, **message.extra} if message.extra else plain


# --- reading ----------------------------------------------------------------------------------------------------------


def decode_json(data: bytes) -> Any:
    """Decode the JSON of an answer. Broken characters become U+FFFD; NaN and infinities become None.

    Raises:
        ProtocolError: for data that is not JSON.
    """
    try:
        return _any.decode(data)
    except _REFUSED as refusal:
        problem = str(refusal)
    try:
        return tolerant.read_json(data)
    except (ValueError, RecursionError):
        pass
    raise _unexpected_body("JSON", problem, data)


def decode_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object in UTF-8, and nothing that only resembles JSON.

    Raises:
        ProtocolError: for any other data.
    """
    try:
        body = _any.decode(data)
    except _REFUSED as refusal:
        problem = str(refusal)
    else:
        if isinstance(body, dict):
            return body
        problem = f"got a {type(body).__name__}"
    raise _unexpected_body("a JSON object", problem, data)


def decode_request(kind: type[RequestT], data: bytes) -> RequestT:
    """Decode a request body, as the gateway does; `null` reads as left out, unknown fields go to `extra`.

    Raises:
        ProtocolError: for data that is not a JSON object in UTF-8.
        InvalidInputError: for a field that is missing or out of range.
    """
    body = decode_object(data)
    given = {name: value for name, value in body.items() if value is not None}
    fields: Any = kind
    known = {field.name: given.pop(field.name, UNSET) for field in attrs.fields(fields) if field.name != "extra"}
    request = kind(extra=given, **known)
    for index, message in enumerate(request.messages):
        checks.one_of(f"messages[{index}].role", message.role, ROLES)
    return request


def decode_context(data: bytes, ids: Mapping[str, str | None] = NO_IDS, head: ResponseHead = NO_HEAD) -> Context:
    """Decode the answer of `/context/create`, and add the answer's ids and head.

    Raises:
        ProtocolError: for data that is not JSON, or not a context.
    """
    context = _stamped(_structure(Context, data), data, ids, head)
    if not context.id:
        raise _unexpected_body("a context", "it has no id", data)
    return context


def decode_completion(
    data: bytes, ids: Mapping[str, str | None] = NO_IDS, head: ResponseHead = NO_HEAD
) -> ChatCompletion:
    """Decode a plain answer of `/context/chat/completions`, and add the answer's ids and head.

    Raises:
        ProtocolError: for data that is not JSON, or not a completion with at least one choice.
    """
    try:
        completion = _decode_completion(data)
    except _REFUSED:
        completion = _structure(ChatCompletion, data)
    completion = _stamped(completion, data, ids, head)
    if not completion.choices:
        raise _unexpected_body("a chat completion", "it has no choices", data)
    return completion


def decode_chunk(data: bytes) -> ChatCompletionChunk:
    """Decode the data of one event of a stream: the fast path.

    Raises:
        ProtocolError: for data that is not JSON, or not a chunk.
    """
    try:
        chunk = _decode_chunk(data)
    except _REFUSED:
        chunk = _structure(ChatCompletionChunk, data)
    force(chunk, "raw_json", data)
    return chunk


_decode_completion = msgspec.json.Decoder(ChatCompletion, strict=False).decode
_decode_chunk = msgspec.json.Decoder(ChatCompletionChunk, strict=False).decode


def _structure(kind: type[T], data: bytes) -> T:
    """Read an answer once more, tolerantly."""
    body = decode_json(data)
    try:
        return tolerant.structure(body, kind)
    except ValueError as error:
        problem = str(error)
    raise _unexpected_body(kind.__name__, problem, data)


def _stamped(answer: T, data: bytes, ids: Mapping[str, str | None], head: ResponseHead) -> T:
    """Put the JSON, the ids and the head on a frozen answer that nobody else holds yet."""
    object.__setattr__(answer, "raw_json", data)
    object.__setattr__(answer, "_head", head)
    for name, value in ids.items():
        object.__setattr__(answer, name, value)
    return answer


def _unexpected_body(promised: str, problem: str, data: bytes) -> ProtocolError:
    shown = data[:_SHOWN_BODY].decode("utf-8", "replace")
    return ProtocolError(f"the server's answer is not {promised}: {problem}", body=shown)
