"""What is asked: the requests of both endpoints, strict.

Every range of the API's documents is checked when the object is made, on both ends of the wire: the client checks
before it sends, the gateway as it reads. What was left out stays `UNSET` and is not sent.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

import attrs

from ..config import UNSET, Unset
from ..errors import InvalidInputError
from ..structs import as_tuple, empty, put, struct

Check: TypeAlias = Callable[[str, Any], Any]

ROLES: Final = ("system", "user", "assistant")
MODES: Final = ("session", "common_prefix")
TTL_RANGE: Final = (3600, 604800)
DEFAULT_TTL: Final = 86400
STRATEGIES: Final = ("last_history_tokens", "rolling_tokens")
MAX_STOPS: Final = 4


# --- checks -----------------------------------------------------------------------------------------------------------


def _text(field: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInputError.of(field, value, "a non-empty string")
    return value


def _one_of(field: str, value: object, allowed: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError.of(field, value, " or ".join(repr(name) for name in allowed))
    return value


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError.of(field, value, "True or False")
    return value


def _number(field: str, value: object, low: float, high: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # NaN fails the comparison
        raise InvalidInputError.of(field, value, f"a number in [{low:g}, {high:g}]")
    return value  # type: ignore[return-value]


def _integer(field: str, value: object, low: int, high: float = math.inf) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 3600.0 is a whole one
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        allowed = f"a whole number from {low} up" if high == math.inf else f"a whole number in [{low}, {high:g}]"
        raise InvalidInputError.of(field, value, allowed)
    return value


def _mapping(field: str, value: object) -> dict[str, Any]:
    if type(value) is dict and not value:
        return value
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidInputError.of(field, value, "a mapping with string keys")
    return dict(value)


def _seconds(field: str, value: object) -> int:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return _integer(field, value, *TTL_RANGE)


def _stop(field: str, value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _text(field, value)
    stops = tuple(value) if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping) else ()
    if not 1 <= len(stops) <= MAX_STOPS or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidInputError.of(field, value, f"a non-empty string, or 1 to {MAX_STOPS} of them")
    return stops


# --- messages ---------------------------------------------------------------------------------------------------------


@struct(kw_only=False)
class Message:
    """One message of a request.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: its text.
        extra: further keys of the message, sent as they are (`name`, …).

    Raises:
        InvalidInputError: for any other role, or content that is not a string.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = empty()

    def __post_init__(self) -> None:
        _check_message("", self.role, self.content)


def _check_message(prefix: str, role: object, content: object) -> None:
    if role not in ROLES or not isinstance(role, str):
        _one_of(f"{prefix}role", role, ROLES)
    if not isinstance(content, str):
        raise InvalidInputError.of(f"{prefix}content", content, "a string")


MessageLike: TypeAlias = Message | Mapping[str, Any]


def system(content: str) -> Message:
    """Make a system message."""
    return Message("system", content)


def user(content: str) -> Message:
    """Make a user message."""
    return Message("user", content)


def assistant(content: str) -> Message:
    """Make an assistant message."""
    return Message("assistant", content)


def _messages(field: str, value: object) -> tuple[Message, ...]:
    plain = type(value) is list  # as it mostly is: the question which protocols it obeys is a dear one
    if not plain and (isinstance(value, str | bytes | Mapping | Message) or not isinstance(value, Iterable)):
        raise InvalidInputError.of(field, value, "a list of messages")
    items: tuple[Any, ...] = tuple(value)  # type: ignore[arg-type]  # an iterable
    if not items:
        raise InvalidInputError.of(field, value, "at least one message")
    for item in items:
        if type(item) is not Message:
            return tuple(_message(f"{field}[{index}]", item) for index, item in enumerate(items))
    return items


def _message(field: str, value: object) -> Message:
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInputError.of(field, value, "a Message, or a mapping with role and content")
    extra = _mapping(field, value)
    role, content = extra.pop("role", UNSET), extra.pop("content", UNSET)
    _check_message(f"{field}.", role, content)
    return Message(role, content, extra=extra)


# --- requests ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TruncationStrategy:
    """What a session context does when its history outgrows the window.

    Attributes:
        type: `last_history_tokens` (keep the newest N tokens of history, drop the oldest first) or `rolling_tokens`
            (drop the oldest block near the window's end and recompute; that turn has no cached tokens).
        last_history_tokens: N, for the type of that name; 4096 is the service's default.
        rolling_tokens: False stops generating at the window's end instead, with `finish_reason` `length`.
        max_window_tokens, rolling_window_tokens: sizes some gateways take.

    Source: vendor documentation; an answer may name other types, a request may not.
    """

    type: str
    last_history_tokens: int | Unset = UNSET
    rolling_tokens: bool | Unset = UNSET
    max_window_tokens: int | Unset = UNSET
    rolling_window_tokens: int | Unset = UNSET


def _strategy(field: str, value: object) -> TruncationStrategy:
    if isinstance(value, Mapping):
        given = _mapping(field, value)
        known = [attribute.name for attribute in attrs.fields(TruncationStrategy)]
        for name in given:
            _one_of(f"{field}: key", name, known)
        value = TruncationStrategy(**{"type": UNSET, **given})
    if not isinstance(value, TruncationStrategy):
        raise InvalidInputError.of(field, value, "a TruncationStrategy or a mapping")
    _one_of(f"{field}.type", value.type, STRATEGIES)
    for name in ("last_history_tokens", "max_window_tokens", "rolling_window_tokens"):
        if (number := getattr(value, name)) is not UNSET:
            _integer(f"{field}.{name}", number, 1)
    if value.rolling_tokens is not UNSET:
        _flag(f"{field}.rolling_tokens", value.rolling_tokens)
    return value


def _logit_bias(field: str, value: object) -> dict[str, Any]:
    biases = _mapping(field, value)
    for token, bias in biases.items():
        _number(f"{field}[{token!r}]", bias, -100, 100)
    return biases


def _extra(_: str, value: object) -> dict[str, Any]:
    return _mapping("extra_body", value)


class _Checks:
    """The checks of one class, by field."""

    def __init__(self, kind: type, checks: Mapping[str, Check]) -> None:
        fields = attrs.fields(kind)
        self._checks = [(field.name, checks[field.name]) for field in fields]
        self._defaults = [field.default for field in fields]  # UNSET, or what no value is

    def __call__(self, request: object) -> None:
        """Check, and bring to its one form, every field that was given."""
        defaults = self._defaults
        for index, value in enumerate(as_tuple(request)):  # zip(strict=True) takes half as long again
            if value is not defaults[index]:
                name, check = self._checks[index]
                checked = check(name, value)
                if checked is not value:
                    put(request, name, checked)


@struct()
class ContextRequest:
    """The body of `POST /context/create`.

    Attributes:
        model: the model's id.
        messages: what the context begins with; the last one may not be the assistant's (vendor documentation).
        mode: `session` (the service keeps the conversation) or `common_prefix` (a shared, immutable prefix).
        ttl: idle seconds after which the context is removed, whole, in [3600, 604800]; the service's default is 86400.
        truncation_strategy: for `session` only.
        extra: further body fields, sent as they are; they win over the ones above.

    Raises:
        InvalidInputError: names the field, what it must be, and what was given.
    """

    model: str
    messages: Iterable[MessageLike]
    mode: str | Unset = UNSET
    ttl: int | timedelta | Unset = UNSET
    truncation_strategy: TruncationStrategy | Mapping[str, Any] | Unset = UNSET
    extra: Mapping[str, Any] = empty()

    def __post_init__(self) -> None:
        _check_context(self)
        last = self.messages[-1]  # type: ignore[index]  # a tuple by now
        if last.role == "assistant":
            raise InvalidInputError.of("messages[-1].role", last.role, "'system' or 'user'")
        if self.mode == "common_prefix" and self.truncation_strategy is not UNSET:
            raise InvalidInputError.of(
                "truncation_strategy", self.truncation_strategy, "left out where mode is 'common_prefix'"
            )


_check_context: Final = _Checks(
    ContextRequest,
    {
        "model": _text,
        "messages": _messages,
        "mode": lambda field, value: _one_of(field, value, MODES),
        "ttl": _seconds,
        "truncation_strategy": _strategy,
        "extra": _extra,
    },
)


@struct()
class ChatRequest:
    """The body of `POST /context/chat/completions`.

    Attributes:
        context_id: the id of a context, as `/context/create` gave it.
        model: the model's id, the one the context was made for.
        messages: on a session context the newest turn only; on a prefix all that follows the prefix.
        temperature: in [0, 2].
        top_p: in [0, 1].
        n: how many replies, from 1 up.
        stream: whether the answer comes as server-sent events.
        stop: one non-empty string, or up to 4.
        max_tokens: the most tokens of one reply, from 1 up.
        presence_penalty, frequency_penalty: in [-2, 2].
        stream_options: `{"include_usage": True}` asks for one more chunk with the usage.
        user: your own id of the end user.
        logprobs: whether to return log probabilities; `top_logprobs` says how many, 0 to 20.
        logit_bias: token id to bias in [-100, 100].
        extra: further body fields, sent as they are; they win over the ones above.

    Raises:
        InvalidInputError: names the field, what it must be, and what was given.
    """

    context_id: str
    model: str
    messages: Iterable[MessageLike]
    temperature: float | Unset = UNSET
    top_p: float | Unset = UNSET
    n: int | Unset = UNSET
    stream: bool | Unset = UNSET
    stop: str | Iterable[str] | Unset = UNSET
    max_tokens: int | Unset = UNSET
    presence_penalty: float | Unset = UNSET
    frequency_penalty: float | Unset = UNSET
    stream_options: Mapping[str, Any] | Unset = UNSET
    user: str | Unset = UNSET
    logprobs: bool | Unset = UNSET
    top_logprobs: int | Unset = UNSET
    logit_bias: Mapping[str, float] | Unset = UNSET
    extra: Mapping[str, Any] = empty()

    def __post_init__(self) -> None:
        _check_chat(self)


_check_chat: Final = _Checks(
    ChatRequest,
    {
        "context_id": _text,
        "model": _text,
        "messages": _messages,
        "temperature": lambda field, value: _number(field, value, 0, 2),
        "top_p": lambda field, value: _number(field, value, 0, 1),
        "n": lambda field, value: _integer(field, value, 1),
        "stream": _flag,
        "stop": _stop,
        "max_tokens": lambda field, value: _integer(field, value, 1),
        "presence_penalty": lambda field, value: _number(field, value, -2, 2),
        "frequency_penalty": lambda field, value: _number(field, value, -2, 2),
        "stream_options": _mapping,
        "user": _text,
        "logprobs": _flag,
        "top_logprobs": lambda field, value: _integer(field, value, 0, 20),
        "logit_bias": _logit_bias,
        "extra": _extra,
    },
)
