"""JSON ↔ models. The only file that knows msgspec and cattrs.

Reading goes through msgspec, straight from bytes into attrs classes. What it refuses as a type is off (`null` for a
list, a number as text deep inside) goes once more through cattrs, which coerces; what that refuses too is an error.
cattrs costs more to import than all the rest of this floor, so it is imported when the first such answer comes.
"""

from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from operator import attrgetter
from typing import Any, TypeVar, cast

import attrs
import msgspec

from .config import UNSET, Unset
from .errors import InvalidInputError, ProtocolError
from .models import ChatCompletion, ChatCompletionChunk, ChatRequest, Context, ContextRequest, Message
from .structs import put

__all__ = ["decode_chunk", "decode_completion", "decode_context", "decode_json", "decode_request", "encode"]

T = TypeVar("T")
RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)

# What msgspec raises: bytes that are not JSON, a type that is off; deep nesting ends in a RecursionError.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SHOWN_BODY = 2000
NO_IDS: Mapping[str, str | None] = {}

_encoder = msgspec.json.Encoder()
_any = msgspec.json.Decoder()


# --- writing ----------------------------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Encode a request or an answer as JSON; what is `UNSET` is left out.

    Raises:
        InvalidInputError: for a value JSON has no form for.
    """
    try:
        if type(value) is ChatRequest and not _is_open(value):
            return _encoder.encode(value)  # checked, and a struct: a third of the time
        return _encoder.encode(_plain(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise InvalidInputError(f"body: not encodable as JSON: {problem}", field="body", allowed="what JSON can carry")


def _is_open(request: ChatRequest) -> bool:
    """Whether it holds what the caller is free in: fields beside ours, and values that are not checked."""
    if request.extra or request.stream_options is not UNSET:
        return True
    messages: Any = request.messages  # Message objects, once checked
    for message in messages:  # noqa: SIM110  # any() takes twice as long, and this is done for every call
        if message.extra:
            return True
    return False


# Bookkeeping of ours that is no part of the JSON.
_OURS = frozenset({"extra", "request_id", "log_id", "client_request_id", "raw_json"})
_NOT_SENT = _OURS | {"error"}  # errors have an envelope of their own


_sent: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {}


def _sent_fields(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The fields of a model that are sent: their names, and how to read them all at once, since most are unset."""
    if kind not in _sent:
        names = tuple(field.name for field in attrs.fields(cast("Any", kind)) if field.name not in _NOT_SENT)
        _sent[kind] = names, attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
    return _sent[kind]


def _plain(value: Any) -> Any:
    """Models as dicts and lists; the rest as it is."""
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is Message:
        plain = {"role": value.role, "content": value.content}
        return {**plain, **_plain(value.extra)} if value.extra else plain
    if kind is float:
        if not isfinite(value):
            raise ValueError(f"{value} is no JSON number")  # msgspec would write null
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if attrs.has(kind):
        names, values = _sent_fields(kind)
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
    raise _not_the_promised("JSON", problem, data)


def decode_request(kind: type[RequestT], data: bytes) -> RequestT:
    """Decode a request body, as the gateway does; `null` reads as left out, unknown fields go to `extra`.

    Raises:
        ProtocolError: for what is not a JSON object.
        InvalidInputError: for a field that is missing or out of range.
    """
    body = decode_json(data)
    if not isinstance(body, dict):
        raise _not_the_promised("a JSON object", f"got a {type(body).__name__}", data)
    given = {name: value for name, value in body.items() if value is not None}
    known = {name: given.pop(name, UNSET) for name in _sent_fields(kind)[0]}
    return kind(extra=given, **known)


def decode_context(data: bytes, ids: Mapping[str, str | None] = NO_IDS) -> Context:
    """Decode the answer of `/context/create`, and put the answer's ids on it.

    Raises:
        ProtocolError: for what is not JSON, or no context.
    """
    context = _stamped(_structure(Context, data), data, ids)
    if not context.id:
        raise _not_the_promised("a context", "it has no id", data)
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
        raise _not_the_promised("a chat completion", "it has no choices", data)
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
    put(chunk, "raw_json", data)  # as _stamped, without its call
    return chunk


_decode_completion = msgspec.json.Decoder(ChatCompletion, strict=False).decode
_decode_chunk = msgspec.json.Decoder(ChatCompletionChunk, strict=False).decode


def _coerce(kind: type[T], data: bytes, refusal: Exception) -> T:
    """Read once more, tolerantly, what msgspec refused; what is not JSON stays refused."""
    if isinstance(refusal, msgspec.ValidationError):
        return _structure(kind, data)
    raise _not_the_promised("JSON", str(refusal), data) from None


def _structure(kind: type[T], data: bytes) -> T:
    body = decode_json(data)
    convert, explain = _converter()
    try:
        decoded: T = convert(body, kind)
    except Exception as error:  # cattrs raises groups of whatever the coercions raised
        problem = "; ".join(explain(error))
    else:
        return decoded
    raise _not_the_promised(kind.__name__, problem, data)


def _stamped(answer: T, data: bytes, ids: Mapping[str, str | None] = NO_IDS) -> T:
    """Put on an answer what is not in its JSON: it is frozen, but nobody's yet."""
    put(answer, "raw_json", data)
    for name, value in ids.items():
        put(answer, name, value)
    return answer


def _not_the_promised(promised: str, problem: str, data: bytes) -> ProtocolError:
    shown = data[:_SHOWN_BODY].decode("utf-8", "replace")
    return ProtocolError(f"the server sent what is not {promised}: {problem}", body=shown)


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
            given = {name: item for name, item in value.items() if item is not None and name not in _OURS}
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
