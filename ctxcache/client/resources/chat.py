"""`POST /context/chat/completions`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Unpack, overload

from ... import wire
from ...config import UNSET, Retry, Timeouts, Unset, hide, read_retry, read_timeouts
from ...errors import InvalidInputError
from ...keywords import suggest_keywords
from ...models import (
    ChatCompletion,
    Message,
    MessageLike,
    ResponseFormatDict,
    StreamOptionsDict,
    ThinkingDict,
    ToolChoiceDict,
    ToolDict,
    read_messages,
)
from ...response_head import ResponseHead
from ..call import Call
from ..calls import Calls
from ..stream import ChatStream
from .parameters import ChatOptions, ChatParameters, given, hide_headers, refuse_unknown

__all__ = ["ChatEndpoint"]

_SETTINGS: Final = ("repeatable", "serialize", "extra_headers", "extra_body")


class ChatEndpoint:
    """`session.chat`.

    Attributes:
        defaults: parameters of every chat that does not give its own; `stream_options` are for streams alone.
    """

    def __init__(self, calls: Calls, defaults: Mapping[str, Any]) -> None:
        self._calls = calls
        self.defaults = defaults
        self._plain_defaults = {name: value for name, value in defaults.items() if name != "stream_options"}

    @overload
    async def create(
        self,
        *,
        context_id: str,
        model: str,
        messages: Iterable[MessageLike],
        stream: Literal[False] | None = False,
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> ChatCompletion: ...
    @overload
    async def create(self, *, stream: Literal[True], **options: Unpack[ChatOptions]) -> ChatStream: ...
    @overload
    async def create(self, *, stream: bool, **options: Unpack[ChatOptions]) -> ChatCompletion | ChatStream: ...
    @suggest_keywords
    async def create(
        self,
        *,
        context_id: str,
        model: str,
        messages: Iterable[MessageLike],
        stream: bool | None = False,
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> ChatCompletion | ChatStream:
        """Chat on a context and wait for the whole answer; with `stream=True`, for the head only.

        A parameter that is left out, or None, is not sent; `chat_defaults` of the session stand in. `UNSET` leaves out
        such a default, too.

        Args:
            context_id: the id of a context.
            model: the id of the model that the context was made for.
            messages: on a session context the newest turn only, on a prefix all messages after the prefix.
            stream: return the opened `ChatStream` instead of the answer; `async with` closes the stream.
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

        Raises:
            InvalidInputError: for an argument out of range; nothing was sent.
            OutcomeUnknownError: the request was sent and no answer came: the turn may have been stored.
            CtxCacheError: any other of the family.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        options = given(locals())
        if stream is True:
            return await self._stream(self._prepare(model, messages, options, stream=True), context_id).open()
        if stream is not False and stream is not None:
            raise InvalidInputError.of("stream", stream, "True or False")
        return await self.send(self._prepare(model, messages, options, stream=False), context_id)

    @suggest_keywords
    def stream(
        self,
        *,
        context_id: str,
        model: str,
        messages: Iterable[MessageLike],
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> ChatStream:
        """Chat on a context and stream the answer: `async with` or `async for` the result.

        Nothing is sent before. Failures up to the head of the answer are retried as in `create`; a stream that has
        begun is never asked for again. Parameters that are left out: as in `create`.

        Args:
            context_id: the id of a context.
            model: the id of the model that the context was made for.
            messages: on a session context the newest turn only, on a prefix all messages after the prefix.
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

        Raises:
            InvalidInputError: for an argument out of range.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        return self._stream(self._prepare(model, messages, given(locals()), stream=True), context_id)

    # --- checked once, sent on any context

    def prepare(
        self,
        *,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        stream: bool = False,
        **options: Unpack[ChatParameters],
    ) -> wire.PreparedChat:
        """Check and encode a chat; `send` and `open_stream` send it, on any context, any number of times.

        Args:
            model: the model the context was made for.
            messages: as in `ChatOptions`; None to give the messages later, by `PreparedChat.asking`.
            stream: whether the answer is to be streamed.
            **options: see `ChatParameters`.

        Raises:
            InvalidInputError: for an argument out of range.
        """
        hide_headers(options)
        if messages is None:
            return self._prepared(model, (), options, stream=stream)
        return self._prepare(model, messages, options, stream=stream)

    async def send(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        *,
        before: Sequence[Message] = (),
        waited: float = 0.0,
        urgent: bool = False,
        on_pause: Callable[[float], object] | None = None,
    ) -> ChatCompletion:
        """Send a prepared chat on a context and wait for the whole answer.

        Args:
            prepared: made by `prepare`, not to be streamed.
            context: the id of a context, or a function that returns an id. The function is called for each attempt,
                when a connection is at hand; a `ContextMissing` from there passes through: nothing was sent.
            before: messages to send in front of the chat's own.
            waited: seconds that the caller has waited already, which count for `Timeouts.total`.
            urgent: whether to wait for a connection at the front of the line.
            on_pause: told the seconds that a 429 asks to wait, unless the policy does not wait so long.

        Raises:
            CtxCacheError: as `create`.
        """
        call = self._begin(prepared, context, before, waited, urgent, on_pause)

        def read(body: bytes, ids: Mapping[str, Any], head: ResponseHead) -> ChatCompletion:
            named = {**ids, "context_id": call.request.context_id}
            return wire.read_completion(body, named, head, replies=prepared.replies)

        return await self._calls.send(call, read)

    async def open_stream(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        *,
        before: Sequence[Message] = (),
        waited: float = 0.0,
        urgent: bool = False,
        on_pause: Callable[[float], object] | None = None,
    ) -> ChatStream:
        """Send a prepared chat on a context and wait for the head of its stream.

        Args:
            prepared: made by `prepare`, with `stream=True`.
            context, before, waited, urgent, on_pause: as in `send`.

        Raises:
            CtxCacheError: as `create`.
        """
        return await self._stream(prepared, context, before, waited, urgent, on_pause).open()

    async def open_alone(self, prepared: wire.PreparedChat) -> ChatStream:
        """Send a prepared chat without a context, all messages in it, and wait for the head of its stream.

        The chat goes to `/chat/completions`, the endpoint of every server of OpenAI's API.

        Args:
            prepared: made by `prepare`, with `stream=True`.

        Raises:
            CtxCacheError: as `create`.
        """
        begin = partial(self._calls.begin, prepared.alone(), prepared.timeouts, prepared.retry)
        return await ChatStream(self._calls, begin, expected_choices=prepared.replies).open()

    def _prepare(
        self, model: str, messages: Iterable[MessageLike], options: ChatParameters, *, stream: bool
    ) -> wire.PreparedChat:
        return self._prepared(model, read_messages(messages), options, stream=stream)

    def _prepared(
        self, model: str, messages: Iterable[Message], options: ChatParameters, *, stream: bool
    ) -> wire.PreparedChat:
        given, calls = self._with_defaults(options, stream), self._calls
        settings = {name: value for name in _SETTINGS if (value := given.pop(name, None)) not in (None, UNSET)}
        timeouts = read_timeouts(given.pop("timeouts", None), calls.timeouts)
        retry = read_retry(given.pop("retry", None), calls.policy)
        refuse_unknown("session.chat.prepare()", given)
        return wire.prepare_chat(
            model, messages, stream=stream, options=given, timeouts=timeouts, retry=retry, **settings
        )

    def _with_defaults(self, given: Mapping[str, Any], stream: bool) -> dict[str, Any]:
        defaults = self.defaults if stream else self._plain_defaults
        options = {**defaults, **{name: value for name, value in given.items() if value is not None}}
        if self._calls.further_headers:
            options["extra_headers"] = self._calls.with_headers(options.get("extra_headers"))
        return options

    def _stream(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        before: Sequence[Message] = (),
        waited: float = 0.0,
        urgent: bool = False,
        on_pause: Callable[[float], object] | None = None,
    ) -> ChatStream:
        begin = partial(self._begin, prepared, context, before, waited, urgent, on_pause)
        return ChatStream(self._calls, begin, expected_choices=prepared.replies)

    def _begin(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        before: Sequence[Message],
        waited: float,
        urgent: bool,
        on_pause: Callable[[float], object] | None,
    ) -> Call:
        request = prepared.on(context() if callable(context) else context, before=before)
        call = self._calls.begin(request, prepared.timeouts, prepared.retry, waited=waited)
        call.urgent, call.on_pause = urgent, on_pause
        if callable(context):

            def choose() -> wire.Request:
                nonlocal request
                context_id = context()
                if context_id != request.context_id:
                    request = prepared.on(context_id, before=before)
                return request

            call.choose = choose
        return call
