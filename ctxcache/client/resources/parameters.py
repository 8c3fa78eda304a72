"""The parameters of a chat, as types."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NotRequired, TypedDict

from ...config import Retry, Timeouts, Unset, hide
from ...errors import InvalidInputError
from ...keywords import unknown_keyword
from ...models import (
    MessageLike,
    ResponseFormatDict,
    StreamOptionsDict,
    ThinkingDict,
    ToolChoiceDict,
    ToolDict,
)

__all__ = ["ChatOptions", "ChatParameters", "given", "hidden_defaults", "hide_headers", "refuse_unknown"]


class ChatParameters(TypedDict):
    """The optional parameters of a chat. A parameter that is left out, or None, is not sent.

    Attributes:
        temperature: randomness, in [0, 2].
        top_p: the share of the probability mass to sample from, in [0, 1].
        n: how many replies, from 1 up.
        stop: a string, or up to 4; generation stops before the first match.
        max_tokens: the most tokens of a reply, from 1 up.
        presence_penalty: in [-2, 2]; positive values favour new topics.
        frequency_penalty: in [-2, 2]; positive values make repetition rarer.
        repetition_penalty: above 0; values above 1 make repetition rarer.
        tools: functions that the model may call: see `ToolDict`; objects with such fields do, too.
        tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
        parallel_tool_calls: whether the model may ask for several calls at once.
        response_format: `{"type": "json_object"}`, or a JSON schema: see `ResponseFormatDict`.
        thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
        stream_options: `{"include_usage": True}` asks a stream for its usage.
        user: your own id of the end user.
        logprobs: whether to return log probabilities.
        top_logprobs: for how many candidates at each place, 0 to 20.
        logit_bias: token id to bias in [-100, 100].
        service_tier: the tier to be served by: `auto`, `default`, …
        repeatable: whether a repeat does no harm, as on a prefix: then lost replies are retried, too. Default: no.
        serialize: whether to wait for this session's other calls on the context. Default: on session contexts.
        extra_headers: further headers of this call.
        extra_body: further body fields, sent unchanged, in place of a parameter of the same name.
        timeouts: seconds for the whole call, or a `Timeouts`, whose named limits replace the session's.
        retry: the number of retries after the first attempt, or a `Retry`. Default: the session's.
    """

    temperature: NotRequired[float | Unset | None]
    top_p: NotRequired[float | Unset | None]
    n: NotRequired[int | Unset | None]
    stop: NotRequired[str | Iterable[str] | Unset | None]
    max_tokens: NotRequired[int | Unset | None]
    presence_penalty: NotRequired[float | Unset | None]
    frequency_penalty: NotRequired[float | Unset | None]
    repetition_penalty: NotRequired[float | Unset | None]
    tools: NotRequired[Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None]
    tool_choice: NotRequired[str | ToolChoiceDict | Mapping[str, Any] | Unset | None]
    parallel_tool_calls: NotRequired[bool | Unset | None]
    response_format: NotRequired[ResponseFormatDict | Mapping[str, Any] | Unset | None]
    thinking: NotRequired[ThinkingDict | Mapping[str, Any] | Unset | None]
    stream_options: NotRequired[StreamOptionsDict | Mapping[str, Any] | Unset | None]
    user: NotRequired[str | Unset | None]
    logprobs: NotRequired[bool | Unset | None]
    top_logprobs: NotRequired[int | Unset | None]
    logit_bias: NotRequired[Mapping[str, float] | Unset | None]
    service_tier: NotRequired[str | Unset | None]
    repeatable: NotRequired[bool | Unset | None]
    serialize: NotRequired[bool | Unset | None]
    extra_headers: NotRequired[Mapping[str, str] | Unset | None]
    extra_body: NotRequired[Mapping[str, Any] | Unset | None]
    timeouts: NotRequired[Timeouts | float | Unset | None]
    retry: NotRequired[Retry | int | Unset | None]


class _Required(TypedDict):
    context_id: str
    model: str
    messages: Iterable[MessageLike]


class ChatOptions(_Required, ChatParameters):
    """The parameters of `chat.create` and `chat.stream`: `ChatParameters`, and the required parameters.

    Attributes:
        context_id: the id of a context.
        model: the id of the model that the context was made for.
        messages: on a session context the newest turn only, on a prefix all messages after the prefix.
    """


_NAMES: Final = tuple(ChatParameters.__annotations__)


def given(arguments: Mapping[str, Any]) -> ChatParameters:
    """Return the parameters of a chat among the arguments of a method, its `locals()`; None means not given."""
    parameters: Any = {name: value for name in _NAMES if (value := arguments[name]) is not None}
    chosen: ChatParameters = parameters
    return chosen


def hide_headers(options: ChatParameters) -> None:
    """Keep a call's own headers, cookies perhaps, out of tracebacks that show local variables."""
    if options.get("extra_headers"):
        options["extra_headers"] = hide(options["extra_headers"])


def hidden_defaults(chat_defaults: ChatParameters | None) -> ChatParameters:
    """Return a copy of the defaults, without None, whose headers do not show where local variables are shown.

    Raises:
        InvalidInputError: the defaults are no mapping.
        TypeError: a default is no parameter of a chat; suggests the nearest name.
    """
    if chat_defaults is not None and not isinstance(chat_defaults, Mapping):
        raise InvalidInputError.of("chat_defaults", type(chat_defaults), "a mapping of chat parameters, or None")
    parameters: Any = {name: value for name, value in (chat_defaults or {}).items() if value is not None}
    defaults: ChatParameters = parameters
    hide_headers(defaults)
    refuse_unknown("chat_defaults", defaults)
    return defaults


def refuse_unknown(function: str, options: Mapping[str, Any]) -> None:
    """Refuse options that no chat has.

    Raises:
        TypeError: as `suggest_keywords`, in the name of `function`.
    """
    for name in options:
        if name not in ChatParameters.__annotations__:
            raise TypeError(unknown_keyword(function, name, ChatParameters.__annotations__))
