"""JSON ↔ models. Only this file knows cattrs; only this file and `structs` know msgspec.

Reading goes through msgspec, straight from bytes into attrs classes. JSON that msgspec refuses because a type is off
(`null` for a list, a number as text) is read once more by cattrs, which coerces. cattrs takes longer to import than
every other file of this floor together, so the import waits for the first such answer.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from math import isfinite
from operator import attrgetter
from typing import Any, Final, TypeVar

import attrs
import msgspec

from . import checks
from .config import UNSET, Unset
from .errors import InvalidInputError, ProtocolError
from .models import ChatCompletion, ChatCompletionChunk, ChatRequest, Context, ContextRequest, Message
from .structs import force

__all__ = [
    "decode_chunk",
    "decode_completion",
    "decode_context",
    "decode_json",
    "decode_request",
    "encode",
    "encode_fields",
    "encode_messages",
]

T = TypeVar("T")
RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)

# msgspec's refusals: bytes that are not JSON, a type that is off; deep nesting ends in a RecursionError.
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
_SHOWN_BODY: Final = 2000
NO_IDS: Mapping[str, str | None] = {}

_encoder: Final = msgspec.json.Encoder()
_any: Final = msgspec.json.Decoder()


# --- writing ----------------------------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Encode models and plain data as JSON; fields that are `UNSET` are left out.

    Raises:
        InvalidInputError: for a value JSON has no form for.
    """
    try:
        return _encoder.encode(_plain(value))
    except _UNENCODABLE as error:
        problem = f"{type(error).__name__}: {error}"
    if isinstance(value, ContextRequest):
        _find_fault(value.messages)
    raise InvalidInputError(f"body must be JSON: {problem}", field="body", allowed="JSON")


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """Encode fields in plain types as a JSON object: `encode` without the search for models.

    Raises:
        InvalidInputError: for a value JSON has no form for; names the field.
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


# Bookkeeping of ours that is no part of the JSON.
_NOT_JSON_FIELDS: Final = frozenset({"extra", "request_id", "log_id", "client_request_id", "raw_json"})
_NOT_WRITTEN: Final = _NOT_JSON_FIELDS | {"error"}  # errors have an envelope of their own


@cache
def _wire_fields(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The fields of a model that are written: their names, and a function that reads all at once."""
    names = tuple(field.name for field in attrs.fields(kind) if field.name not in _NOT_WRITTEN)
    return names, attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)


def _plain(value: Any) -> Any:
    """Models as dicts and lists; any other value as it is."""
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is Message:
        return _plain_message(value)
    if kind is float:
        if not isfinite(value):
            raise ValueError(f"{value} is no JSON number")  # msgspec would write null
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if attrs.has(kind):
        names, values = _wire_fields(kind)
        plain = {name: _plain(item) for name, item in zip(names, values(value), strict=True) if item is not UNSET}
        extra = getattr(value, "extra", None)
        return {**plain, **_plain(extra)} if extra else plain
    return value


# --- reading ----------------------------------------------------------------------------------------------------------


def decode_json(data: bytes) -> Any:
    """Decode any JSON.

    Raises:
        ProtocolError: for what is not JSON.
    """
    try:
        return _any.decode(data)
    except _REFUSED as error:
        problem = str(error)
    raise _unexpected_body("JSON", problem, data)


def decode_request(kind: type[RequestT], data: bytes) -> RequestT:
    """Decode a request body, as the gateway does; `null` reads as left out, unknown fields go to `extra`.

    Raises:
        ProtocolError: for what is not a JSON object.
        InvalidInputError: for a field that is missing or out of range.
    """
    body = decode_json(data)
    if not isinstance(body, dict):
        raise _unexpected_body("a JSON object", f"got a {type(body).__name__}", data)
    given = {name: value for name, value in body.items() if value is not None}
    fields: Any = kind
    known = {name: given.pop(name, UNSET) for name in _wire_fields(fields)[0]}
    return kind(extra=given, **known)


def decode_context(data: bytes, ids: Mapping[str, str | None] = NO_IDS) -> Context:
    """Decode the answer of `/context/create`, and put the answer's ids on it.

    Raises:
        ProtocolError: for what is not JSON, or no context.
    """
    context = _stamped(_structure(Context, data), data, ids)
    if not context.id:
        raise _unexpected_body("a context", "it has no id", data)
    return context


def decode_completion(data: bytes, ids: Mapping[str, str | None] = NO_IDS) -> ChatCompletion:
    """Decode a plain answer of `/context/chat/completions`, and put the answer's ids on it.

    Raises:
        ProtocolError: for what is not JSON, or no completion with at least one choice.
    """
    try:
        completion = _decode_completion(data)
    except _REFUSED as refusal:
        completion = _coerce(ChatCompletion, data, refusal)
    completion = _stamped(completion, data, ids)
    if not completion.choices:
        raise _unexpected_body("a chat completion", "it has no choices", data)
    return completion


def decode_chunk(data: bytes) -> ChatCompletionChunk:
    """Decode the data of one event of a stream: the fast path.

    Raises:
        ProtocolError: for what is not JSON, or no chunk.
    """
    try:
        chunk = _decode_chunk(data)
    except _REFUSED as refusal:
        chunk = _coerce(ChatCompletionChunk, data, refusal)
    force(chunk, "raw_json", data)
    return chunk


_decode_completion = msgspec.json.Decoder(ChatCompletion, strict=False).decode
_decode_chunk = msgspec.json.Decoder(ChatCompletionChunk, strict=False).decode


def _coerce(kind: type[T], data: bytes, refusal: Exception) -> T:
    """Read once more, tolerantly, what msgspec refused; what is not JSON stays refused."""
    if isinstance(refusal, msgspec.ValidationError):
        return _structure(kind, data)
    raise _unexpected_body("JSON", str(refusal), data) from None


def _structure(kind: type[T], data: bytes) -> T:
    body = decode_json(data)
    convert, explain = _converter()
    try:
        decoded: T = convert(body, kind)
    except Exception as error:  # cattrs raises groups of whatever the coercions raised
        problem = "; ".join(explain(error))
    else:
        return decoded
    raise _unexpected_body(kind.__name__, problem, data)


def _stamped(answer: T, data: bytes, ids: Mapping[str, str | None]) -> T:
    """Put the JSON and the ids on an answer: it is frozen, but nobody else holds it yet."""
    object.__setattr__(answer, "raw_json", data)
    for name, value in ids.items():
        object.__setattr__(answer, name, value)
    return answer


def _unexpected_body(promised: str, problem: str, data: bytes) -> ProtocolError:
    shown = data[:_SHOWN_BODY].decode("utf-8", "replace")
    return ProtocolError(f"the server's answer is not {promised}: {problem}", body=shown)


@cache
def _converter() -> tuple[Callable[[Any, type], Any], Callable[[BaseException], list[str]]]:
    """The tolerant reader and the function that lists what was wrong."""
    import cattrs

    converter = cattrs.Converter()

    def hook(kind: type) -> Callable[[Any, Any], Any]:
        structure: Callable[[Any, Any], Any] = cattrs.gen.make_dict_structure_fn(kind, converter)

        def tolerant(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError(f"expected an object, got {type(value).__name__}")
            given = {name: item for name, item in value.items() if item is not None and name not in _NOT_JSON_FIELDS}
            if "last_history_token" in given:  # seen in answers of the service
                given.setdefault("last_history_tokens", given["last_history_token"])
            return structure(given, kind)

        return tolerant

    def integer(value: Any, _: Any) -> int:
        return value if isinstance(value, int) else int(float(value))

    def text(value: Any, _: Any) -> str:
        if not isinstance(value, str | int | float):
            raise TypeError(f"expected text, got {type(value).__name__}")
        return str(value)

    converter.register_structure_hook_factory(attrs.has, hook)
    converter.register_structure_hook(int, integer)
    converter.register_structure_hook(str, text)
    converter.register_structure_hook(int | Unset, integer)
    converter.register_structure_hook(bool | Unset, lambda value, _: bool(value))
    return converter.structure, cattrs.transform_error
