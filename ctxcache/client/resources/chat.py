"""`POST /context/chat/completions`."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, NotRequired, TypedDict, Unpack, overload

from ... import wire
from ...config import UNSET, Retry, Timeouts, Unset
from ...errors import InvalidInputError
from ...models import ChatCompletion, ChatRequest, MessageLike
from ..calls import Calls
from ..stream import ChatStream

__all__ = ["ChatEndpoint", "ChatOptions", "ChatParameters"]


class _Target(TypedDict):
    context_id: str
    model: str
    messages: Iterable[MessageLike]


class ChatParameters(TypedDict):
    """The optional parameters of a chat; what is left out is not sent.

    Attributes:
        temperature: randomness, in [0, 2].
        top_p: the share of the probability mass to sample from, in [0, 1].
        n: how many replies, from 1 up.
        stop: one string or up to 4; generation stops before them.
        max_tokens: the most tokens of one reply, from 1 up.
        presence_penalty: in [-2, 2]; positive values bring in new topics.
        frequency_penalty: in [-2, 2]; positive values make repetition rarer.
        stream_options: `{"include_usage": True}` asks a stream for its usage.
        user: your own id of the end user.
        logprobs, top_logprobs: whether to return log probabilities, and of how many candidates (0 to 20).
        logit_bias: token id to bias in [-100, 100].
        repeatable: whether sending this twice is harmless, as on a `common_prefix` context: then a lost reply is
            retried, too. Default False: a turn is sent again only where it provably did not run.
        serialize: whether to wait for this session's other calls on the context. Default: where it is known as a
            session context, because this session made it or the service called it busy.
        extra_headers: further headers of this call.
        extra_body: further body fields, sent as they are; they win over the parameters.
        timeouts: the limits of this call instead of the session's.
        retry: when to try this call again, instead of the session's.
    """

    temperature: NotRequired[float | Unset]
    top_p: NotRequired[float | Unset]
    n: NotRequired[int | Unset]
    stop: NotRequired[str | Iterable[str] | Unset]
    max_tokens: NotRequired[int | Unset]
    presence_penalty: NotRequired[float | Unset]
    frequency_penalty: NotRequired[float | Unset]
    stream_options: NotRequired[Mapping[str, Any] | Unset]
    user: NotRequired[str | Unset]
    logprobs: NotRequired[bool | Unset]
    top_logprobs: NotRequired[int | Unset]
    logit_bias: NotRequired[Mapping[str, float] | Unset]
    repeatable: NotRequired[bool]
    serialize: NotRequired[bool | Unset]
    extra_headers: NotRequired[Mapping[str, str] | None]
    extra_body: NotRequired[Mapping[str, Any] | None]
    timeouts: NotRequired[Timeouts | None]
    retry: NotRequired[Retry | None]


class ChatOptions(_Target, ChatParameters):
    """The parameters of `chat.create` and `chat.stream`: those of `ChatParameters`, and the required ones.

    Attributes:
        context_id: the id of a context.
        model: the model the context was made for.
        messages: `Message` objects or mappings with `role` and `content`: on a session context the newest turn only,
            on a prefix all that follows it.
    """


class ChatEndpoint:
    """`session.chat`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @overload
    async def create(self, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]) -> ChatCompletion: ...
    @overload
    async def create(self, *, stream: Literal[True], **options: Unpack[ChatOptions]) -> ChatStream: ...
    @overload
    async def create(self, *, stream: bool, **options: Unpack[ChatOptions]) -> ChatCompletion | ChatStream: ...
    async def create(self, *, stream: bool = False, **options: Unpack[ChatOptions]) -> ChatCompletion | ChatStream:
        """Chat on a context and wait for the whole answer; with `stream=True`, for its head only.

        Args:
            stream: return the opened `ChatStream` instead of the answer. Close it: `async with` it.
            **options: see `ChatOptions` and `ChatParameters`.

        Raises:
            InvalidInputError: for an argument out of its range; nothing was sent.
            OutcomeUnknownError: the request was sent and no answer came: the turn may have been stored.
            CtxCacheError: any other of the family.
        """
        if stream is True:
            return await self.stream(**options).open()
        if stream is not False:
            raise InvalidInputError.of("stream", stream, "True or False")
        request = _request(stream=False, **options)
        return await self._calls.send(request, wire.read_completion, options.get("timeouts"), options.get("retry"))

    def stream(self, **options: Unpack[ChatOptions]) -> ChatStream:
        """Chat on a context and stream the answer: `async with` the result, or iterate it straight.

        Nothing is sent before that. What goes wrong until the head of the answer has come is retried as in `create`;
        a stream that has begun is never asked for again.

        Args:
            **options: see `ChatOptions` and `ChatParameters`.

        Raises:
            InvalidInputError: for an argument out of its range.
        """
        request = _request(stream=True, **options)
        n = {"n": options.get("n"), **(options.get("extra_body") or {})}["n"]
        begin = partial(self._calls.begin, request, options.get("timeouts"), options.get("retry"))
        return ChatStream(self._calls, begin, expected_choices=n if isinstance(n, int) else 1)


def _request(
    *,
    stream: bool,
    repeatable: bool = False,
    serialize: bool | Unset = UNSET,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    timeouts: Timeouts | None = None,
    retry: Retry | None = None,
    **body: Any,
) -> wire.Request:
    chat = ChatRequest(
        stream=True if stream else UNSET,  # what is left out is not sent
        extra={} if extra_body is None else extra_body,
        **body,
    )
    return wire.chat_request(chat, repeatable=repeatable, serialize=serialize, headers=extra_headers)
