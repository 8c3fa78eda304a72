"""`POST /context/chat/completions`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NotRequired, TypedDict, Unpack, overload

from ... import wire
from ...config import UNSET, Retry, Timeouts, Unset, hide
from ...errors import InvalidInputError
from ...models import ChatCompletion, Message, MessageLike, read_messages
from ..call import Call
from ..calls import Calls
from ..keywords import unknown_keyword
from ..stream import ChatStream

__all__ = ["ChatEndpoint", "ChatOptions", "ChatParameters", "hide_headers"]


class ChatParameters(TypedDict):
    """The optional parameters of a chat. A parameter that is left out, or None, is not sent.

    Attributes:
        temperature: randomness, in [0, 2].
        top_p: the share of the probability mass to sample from, in [0, 1].
        n: how many replies, from 1 up.
        stop: a string, or up to 4; generation stops before a match.
        max_tokens: the most tokens of a reply, from 1 up.
        presence_penalty: in [-2, 2]; positive values bring in new topics.
        frequency_penalty: in [-2, 2]; positive values make repetition rarer.
        repetition_penalty: above 0; values above 1 make repetition rarer.
        tools: functions that the model may call: mappings in OpenAI's form, or objects with such fields.
        tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
        parallel_tool_calls: whether the model may ask for several calls at once.
        response_format: `{"type": "json_object"}`, or a JSON schema.
        thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
        stream_options: `{"include_usage": True}` asks a stream for its usage.
        user: your own id of the end user.
        logprobs, top_logprobs: whether to return log probabilities, and of how many candidates (0 to 20).
        logit_bias: token id to bias in [-100, 100].
        service_tier: the tier to be served by: `auto`, `default`, …
        repeatable: whether sending the chat twice is harmless, as on a `common_prefix` context: then a lost reply is
            retried, too. Default False: only a turn that provably did not run is sent again.
        serialize: whether to wait for this session's other calls on the context. Default: only on a known session
            context, which this session created or the service called busy.
        extra_headers: further headers of this call.
        extra_body: further body fields, sent unchanged, in place of a parameter of the same name.
        timeouts: the limits of this call: a `Timeouts`, whose named limits replace the session's, or a number of
            seconds for the whole call.
        retry: when to try this call again: a `Retry`, or a number of retries after the first attempt.
    """

    temperature: NotRequired[float | Unset | None]
    top_p: NotRequired[float | Unset | None]
    n: NotRequired[int | Unset | None]
    stop: NotRequired[str | Iterable[str] | Unset | None]
    max_tokens: NotRequired[int | Unset | None]
    presence_penalty: NotRequired[float | Unset | None]
    frequency_penalty: NotRequired[float | Unset | None]
    repetition_penalty: NotRequired[float | Unset | None]
    tools: NotRequired[Sequence[Mapping[str, Any] | object] | Unset | None]
    tool_choice: NotRequired[str | Mapping[str, Any] | Unset | None]
    parallel_tool_calls: NotRequired[bool | Unset | None]
    response_format: NotRequired[Mapping[str, Any] | Unset | None]
    thinking: NotRequired[Mapping[str, Any] | Unset | None]
    stream_options: NotRequired[Mapping[str, Any] | Unset | None]
    user: NotRequired[str | Unset | None]
    logprobs: NotRequired[bool | Unset | None]
    top_logprobs: NotRequired[int | Unset | None]
    logit_bias: NotRequired[Mapping[str, float] | Unset | None]
    service_tier: NotRequired[str | Unset | None]
    repeatable: NotRequired[bool | None]
    serialize: NotRequired[bool | Unset | None]
    extra_headers: NotRequired[Mapping[str, str] | None]
    extra_body: NotRequired[Mapping[str, Any] | None]
    timeouts: NotRequired[Timeouts | float | None]
    retry: NotRequired[Retry | int | None]


class _Required(TypedDict):
    context_id: str
    model: str
    messages: Iterable[MessageLike]


class ChatOptions(_Required, ChatParameters):
    """The parameters of `chat.create` and `chat.stream`: `ChatParameters`, and the required parameters.

    Attributes:
        context_id: the id of a context.
        model: the model the context was made for.
        messages: `Message` objects or mappings with `role` and `content`: on a session context the newest turn only,
            on a prefix every message after the prefix.
    """


class ChatEndpoint:
    """`session.chat`."""

    def __init__(self, calls: Calls, defaults: Mapping[str, Any]) -> None:
        self._calls = calls
        self._defaults = defaults

    @overload
    async def create(self, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]) -> ChatCompletion: ...
    @overload
    async def create(self, *, stream: Literal[True], **options: Unpack[ChatOptions]) -> ChatStream: ...
    @overload
    async def create(self, *, stream: bool, **options: Unpack[ChatOptions]) -> ChatCompletion | ChatStream: ...
    async def create(self, *, stream: bool = False, **options: Unpack[ChatOptions]) -> ChatCompletion | ChatStream:
        """Chat on a context and wait for the whole answer; with `stream=True`, for the head only.

        Args:
            stream: return the opened `ChatStream` instead of the answer; `async with` closes the stream.
            **options: see `ChatOptions` and `ChatParameters`.

        Raises:
            InvalidInputError: for an argument out of range; nothing was sent.
            OutcomeUnknownError: the request was sent and no answer came: the turn may have been stored.
            CtxCacheError: any other of the family.
        """
        hide_headers(options)
        if stream is True:
            return await self.stream(**options).open()
        if stream is not False:
            raise InvalidInputError.of("stream", stream, "True or False")
        context_id, prepared = self._prepare(options, stream=False)
        return await self.send(prepared, context_id)

    def stream(self, **options: Unpack[ChatOptions]) -> ChatStream:
        """Chat on a context and stream the answer: `async with` or `async for` the result.

        Nothing is sent before. Failures up to the head of the answer are retried as in `create`; a stream that has
        begun is never asked for again.

        Args:
            **options: see `ChatOptions` and `ChatParameters`.

        Raises:
            InvalidInputError: for an argument out of range.
        """
        hide_headers(options)
        context_id, prepared = self._prepare(options, stream=True)
        return self._stream(prepared, context_id)

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
        checked = () if messages is None else read_messages(messages)
        hide_headers(options)
        return _prepared(model, checked, self._with_defaults(options), stream=stream)

    async def send(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        *,
        before: Sequence[Message] = (),
        waited: float = 0.0,
        urgent: bool = False,
    ) -> ChatCompletion:
        """Send a prepared chat on a context and wait for the whole answer.

        Args:
            prepared: made by `prepare`, not to be streamed.
            context: the id of a context, or a function that returns an id. The function is called for each attempt,
                when a connection is at hand; a `ContextMissing` from there passes through: nothing was sent.
            before: messages to send in front of the chat's own.
            waited: seconds that the caller has waited already, which count for `Timeouts.total`.
            urgent: whether to wait for a connection at the front of the line.

        Raises:
            CtxCacheError: as `create`.
        """
        return await self._calls.send(self._begin(prepared, context, before, waited, urgent), wire.read_completion)

    async def open_stream(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        *,
        before: Sequence[Message] = (),
        waited: float = 0.0,
        urgent: bool = False,
    ) -> ChatStream:
        """Send a prepared chat on a context and wait for the head of its stream.

        Args:
            prepared: made by `prepare`, with `stream=True`.
            context, before, waited, urgent: as in `send`.

        Raises:
            CtxCacheError: as `create`.
        """
        return await self._stream(prepared, context, before, waited, urgent).open()

    def _prepare(self, given: Mapping[str, Any], *, stream: bool) -> tuple[str, wire.PreparedChat]:
        options = self._with_defaults(given)
        context_id, model, messages = [_taken(options, name) for name in _REQUIRED]
        return context_id, _prepared(model, read_messages(messages), options, stream=stream)

    def _with_defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        said = {name: value for name, value in given.items() if value is not None or name in _REQUIRED}
        options = {**self._defaults, **said}
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
    ) -> ChatStream:
        begin = partial(self._begin, prepared, context, before, waited, urgent)
        return ChatStream(self._calls, begin, expected_choices=prepared.replies)

    def _begin(
        self,
        prepared: wire.PreparedChat,
        context: str | Callable[[], str],
        before: Sequence[Message],
        waited: float,
        urgent: bool,
    ) -> Call:
        request = prepared.on(context() if callable(context) else context, before=before)
        call = self._calls.begin(request, prepared.timeouts, prepared.retry, waited=waited)
        call.urgent = urgent
        if callable(context):

            def choose() -> wire.Request:
                nonlocal request
                context_id = context()
                if context_id != request.context_id:
                    request = prepared.on(context_id, before=before)
                return request

            call.choose = choose
        return call


def hide_headers(options: ChatParameters) -> None:
    """Keep a call's own headers, cookies perhaps, out of tracebacks that show local variables."""
    if options.get("extra_headers"):
        options["extra_headers"] = hide(options["extra_headers"])


def _taken(options: dict[str, Any], name: str) -> Any:
    try:
        return options.pop(name)
    except KeyError:
        pass
    for given in options:
        if given not in ChatOptions.__annotations__:
            raise TypeError(unknown_keyword("a chat", given, ChatOptions.__annotations__))
    raise TypeError(f"a chat needs the keyword argument {name!r}")


_REQUIRED = ("context_id", "model", "messages")
_SETTINGS = ("repeatable", "serialize", "extra_headers", "extra_body", "timeouts", "retry")


def _prepared(model: str, messages: Iterable[Message], given: dict[str, Any], *, stream: bool) -> wire.PreparedChat:
    settings = {name: value for name in _SETTINGS if (value := given.pop(name, None)) not in (None, UNSET)}
    for name in given:
        if name not in ChatParameters.__annotations__:
            raise TypeError(unknown_keyword("a chat", name, ChatOptions.__annotations__))
    return wire.prepare_chat(model, messages, stream=stream, options=given, **settings)
