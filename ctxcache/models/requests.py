"""The requests of both endpoints, strict: every range of the API's documents is checked.

The definition of a field names the check. The classes check on construction, which is how the gateway reads a body;
`check_options` checks a caller's options without making an object, as the client does before sending. A field that was
left out is `UNSET` and is not sent; None means the same.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

import attrs

from .. import checks
from ..config import UNSET, Unset
from ..errors import InvalidInputError
from .answers import TruncationStrategy
from .messages import Message, read_messages
from .plain import BESIDE

MODES: Final = ("session", "common_prefix")
TTL_RANGE: Final = (3600, 604800)
DEFAULT_TTL: Final = 86400
STRATEGIES: Final = ("last_history_tokens", "rolling_tokens")
MAX_STOPS: Final = 4

Check: TypeAlias = Callable[[str, Any], Any]


# --- fields -----------------------------------------------------------------------------------------------------------


def _context_id(value: str) -> str:
    return checks.text("context_id", value)


def _model(value: str) -> str:
    return checks.text("model", value)


def _optional(check: Check) -> Any:
    """Define a field that may be left out; `check(name, value)` returns the value to keep."""

    def convert(value: Any, attribute: "attrs.Attribute[Any]") -> Any:
        return UNSET if value is UNSET or value is None else check(attribute.name, value)

    return attrs.field(
        default=UNSET, converter=attrs.Converter(convert, takes_field=True), hash=False, metadata={"check": check}
    )


def _number(low: float, high: float) -> Any:
    return _optional(lambda field, value: checks.number(field, value, low, high))


def _whole(low: int, high: float = float("inf")) -> Any:
    return _optional(lambda field, value: checks.whole(field, value, low, high))


def _ttl(value: int | timedelta | Unset | None) -> int | Unset:
    if value is UNSET or value is None:
        return UNSET
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return checks.whole("ttl", seconds, *TTL_RANGE)


def _stop(field: str, value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return checks.text(field, value)
    stops = tuple(value) if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping) else ()
    if not 1 <= len(stops) <= MAX_STOPS or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidInputError.of(field, value, f"a non-empty string, or a list of 1 to {MAX_STOPS} of them")
    return tuple(checks.text(field, stop) for stop in stops)


def _logit_bias(field: str, value: object) -> dict[str, Any]:
    return {
        token: checks.number(f"{field}[{token!r}]", bias, -100, 100)
        for token, bias in checks.json_mapping(field, value).items()
    }


def _tools(field: str, value: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidInputError.of(field, value, "a list of at least one tool")
    tools = checks.json_value(field, value)
    for index, found in enumerate(tools):
        if not isinstance(found, dict):
            raise InvalidInputError.of(f"{field}[{index}]", found, "a mapping, or an object with a tool's fields")
    return tuple(tools)


def _tool_choice(field: str, value: object) -> str | dict[str, Any]:
    if isinstance(value, str):
        return checks.text(field, value)
    choice = checks.json_value(field, value)
    if not isinstance(choice, dict):
        raise InvalidInputError.of(field, value, "a string, or a mapping that names a function")
    return choice


def _further(value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidInputError.of("extra_body", value, "a mapping with string keys")
    return dict(value)


# --- requests ---------------------------------------------------------------------------------------------------------


def _strategy(value: TruncationStrategy | Mapping[str, Any] | Unset | None) -> TruncationStrategy | Unset:
    if value is UNSET or value is None:
        return UNSET
    field = "truncation_strategy"
    if isinstance(value, Mapping):
        known = [attribute.name for attribute in attrs.fields(TruncationStrategy)]
        for name in value:
            checks.one_of(f"{field}: key", name, known)
        value = TruncationStrategy(**{"type": UNSET, **value})
    if not isinstance(value, TruncationStrategy):
        raise InvalidInputError.of(field, value, "a TruncationStrategy or a mapping")
    checked: dict[str, Any] = {"type": checks.one_of(f"{field}.type", value.type, STRATEGIES)}
    for name in ("last_history_tokens", "max_window_tokens", "rolling_window_tokens"):
        if (size := getattr(value, name)) is not UNSET:
            checked[name] = checks.whole(f"{field}.{name}", size, 1)
    if value.rolling_tokens is not UNSET:
        checked["rolling_tokens"] = checks.flag(f"{field}.rolling_tokens", value.rolling_tokens)
    return TruncationStrategy(**checked)


def _mode(field: str, value: object) -> str:
    return checks.one_of(field, value, MODES)


@attrs.frozen(kw_only=True)
class ContextRequest:
    """The body of `POST /context/create`.

    Attributes:
        model: the model's id.
        messages: the first messages of the context; the last may not be the assistant's (vendor documentation).
        mode: `session` (the service keeps the conversation) or `common_prefix` (a shared, immutable prefix).
        ttl: idle seconds after which the context is removed, whole, in [3600, 604800]; the service's default is 86400.
        truncation_strategy: for `session` only.
        extra: further body fields, sent unchanged, in place of a field above that has the same name.

    Raises:
        InvalidInputError: names the field, the allowed values and the given value.
    """

    model: str = attrs.field(converter=_model)
    messages: tuple[Message, ...] = attrs.field(converter=read_messages)
    mode: str | Unset = _optional(_mode)
    ttl: int | Unset = attrs.field(default=UNSET, converter=_ttl)
    truncation_strategy: TruncationStrategy | Unset = attrs.field(default=UNSET, converter=_strategy)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_further, hash=False, metadata=BESIDE)

    def __attrs_post_init__(self) -> None:
        last = self.messages[-1]
        if last.role == "assistant":
            raise InvalidInputError.of("messages[-1].role", last.role, "'system' or 'user'")
        if self.mode == "common_prefix" and self.truncation_strategy is not UNSET:
            allowed = "left out where mode is 'common_prefix'"
            raise InvalidInputError.of("truncation_strategy", self.truncation_strategy, allowed)


@attrs.frozen(kw_only=True)
class ChatRequest:
    """The body of `POST /context/chat/completions`.

    Attributes:
        context_id: the id of a context, as `/context/create` gave it.
        model: the id of the model that the context was made for.
        messages: on a session context the newest turn only; on a prefix every message after the prefix.
        temperature: in [0, 2].
        top_p: in [0, 1].
        n: how many replies, from 1 up.
        stream: whether the answer comes as server-sent events.
        stop: a non-empty string, or up to 4.
        max_tokens: the most tokens of a reply, from 1 up.
        presence_penalty, frequency_penalty: in [-2, 2].
        stream_options: `{"include_usage": True}` asks for a further chunk with the usage.
        user: your own id of the end user.
        logprobs: whether to return log probabilities; `top_logprobs` says how many, 0 to 20.
        logit_bias: token id to bias in [-100, 100].
        tools: the functions that the model may call, in OpenAI's form.
        tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
        parallel_tool_calls: whether the model may ask for several calls at once.
        response_format: `{"type": "json_object"}`, `{"type": "json_schema", …}`.
        repetition_penalty: above 0; above 1 makes repetition rarer.
        service_tier: the tier to be served by: `auto`, `default`, …
        thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
        extra: further body fields, sent unchanged, in place of a field above that has the same name.

    Raises:
        InvalidInputError: names the field, the allowed values and the given value.
    """

    context_id: str = attrs.field(converter=_context_id)
    model: str = attrs.field(converter=_model)
    messages: tuple[Message, ...] = attrs.field(converter=read_messages)
    temperature: float | Unset = _number(0, 2)
    top_p: float | Unset = _number(0, 1)
    n: int | Unset = _whole(1)
    stream: bool | Unset = _optional(checks.flag)
    stop: str | tuple[str, ...] | Unset = _optional(_stop)
    max_tokens: int | Unset = _whole(1)
    presence_penalty: float | Unset = _number(-2, 2)
    frequency_penalty: float | Unset = _number(-2, 2)
    stream_options: Mapping[str, Any] | Unset = _optional(checks.json_mapping)
    user: str | Unset = _optional(checks.text)
    logprobs: bool | Unset = _optional(checks.flag)
    top_logprobs: int | Unset = _whole(0, 20)
    logit_bias: Mapping[str, float] | Unset = _optional(_logit_bias)
    tools: tuple[dict[str, Any], ...] | Unset = _optional(_tools)
    tool_choice: str | Mapping[str, Any] | Unset = _optional(_tool_choice)
    parallel_tool_calls: bool | Unset = _optional(checks.flag)
    response_format: Mapping[str, Any] | Unset = _optional(checks.json_mapping)
    repetition_penalty: float | Unset = _number(0, float("inf"))
    service_tier: str | Unset = _optional(checks.text)
    thinking: Mapping[str, Any] | Unset = _optional(checks.json_mapping)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_further, hash=False, metadata=BESIDE)


_CHAT_CHECKS: Final[Mapping[str, Check]] = {
    field.name: field.metadata["check"] for field in attrs.fields(ChatRequest) if "check" in field.metadata
}


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the optional fields of a chat as `ChatRequest` does, without making an object; leave out `UNSET` and None.

    Raises:
        InvalidInputError: names the field, the allowed values and the given value.
        KeyError: for a name that is not an optional field of `ChatRequest`.
    """
    return {
        name: _CHAT_CHECKS[name](name, value)
        for name, value in options.items()
        if not (value is UNSET or value is None)
    }
