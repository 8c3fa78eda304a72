"""The wire: a call → a request; a body → a model or an error; an event → a chunk, the end or an error. Pure.

`service_errors` decides the class of an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from . import checks, codec
from .config import UNSET, HiddenText, Retry, Timeouts, Unset
from .errors import InvalidInputError, ProtocolError
from .fold import Fold
from .models import ChatCompletion, ChatCompletionChunk, Context, ContextRequest, Message, check_options
from .response_head import NO_HEAD, ResponseHead
from .service_errors import error_in, error_inside, raise_error_inside
from .sse import RawEvent, SSEDecoder
from .structs import struct

__all__ = [
    "CHAT_PATH",
    "COMPLETIONS_PATH",
    "CREATE_PATH",
    "PreparedChat",
    "Request",
    "check_headers",
    "create_request",
    "is_done",
    "looks_like_events",
    "prepare_chat",
    "read_completion",
    "read_context",
    "read_events",
]

CREATE_PATH: Final = "/context/create"
_TIMEOUTS, _RETRY = Timeouts(), Retry()
CHAT_PATH: Final = "/context/chat/completions"
COMPLETIONS_PATH: Final = "/chat/completions"  # a chat without a context, at a server of OpenAI's API


# --- requests ---------------------------------------------------------------------------------------------------------


@struct(kw_only=True)
class Request:
    """A POST, ready to be sent any number of times.

    Attributes:
        path: below the base URL.
        body: the JSON, encoded once.
        repeatable: whether sending the request twice does no harm.
        stream: whether the answer is to be a stream of events.
        context_id: the context of a chat, None for a create.
        serialize: whether to wait for this session's other calls on that context; `UNSET`: where needed.
        headers: the caller's own, for this call.
    """

    path: str
    body: bytes = attrs.field(repr=False)
    repeatable: bool
    stream: bool = False
    context_id: str | None = None
    serialize: bool | Unset = UNSET
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@struct(kw_only=True)
class PreparedChat:
    """A chat, checked and encoded but for the context: `on(context_id)` or `alone()` makes the request.

    Attributes:
        messages: the messages as JSON objects with commas between; b"" where the chat has none yet.
        fields: the other fields as JSON, from the comma after the messages to the closing brace.
        replies: how many replies the answer will have.
        stream, repeatable, serialize, headers: as in `Request`.
        timeouts, retry: the limits and the retry policy in force.
    """

    messages: bytes = attrs.field(repr=False)
    fields: bytes = attrs.field(repr=False)
    replies: int
    stream: bool
    repeatable: bool
    serialize: bool | Unset
    headers: Mapping[str, str] = attrs.field(repr=False)
    timeouts: Timeouts = attrs.field(repr=False)
    retry: Retry = attrs.field(repr=False)

    def asking(self, messages: Iterable[Message], *, retry: Retry | None = None) -> "PreparedChat":
        """Return the same chat with other messages, and with another retry policy if given.

        Raises:
            InvalidInputError: for text that UTF-8 cannot carry.
        """
        policy = self.retry if retry is None else retry
        return attrs.evolve(self, messages=codec.encode_messages(messages), retry=policy)

    def on(self, context_id: str, *, before: Sequence[Message] = ()) -> Request:
        """Return the request that sends this chat on a context.

        Args:
            context_id: the context.
            before: messages to send in front of the chat's own.

        Raises:
            InvalidInputError: `context_id` is not a non-empty string, or a message has text that UTF-8 cannot carry.
        """
        given = codec.encode_fields({"context_id": checks.text("context_id", context_id)})[:-1] + b","
        messages = b"%b,%b" % (codec.encode_messages(before), self.messages) if before else self.messages
        return self._request(CHAT_PATH, given, messages, context_id)

    def alone(self) -> Request:
        """Return the request that sends this chat without a context, to `/chat/completions`."""
        return self._request(COMPLETIONS_PATH, b"{", self.messages, None)

    def _request(self, path: str, beginning: bytes, messages: bytes, context_id: str | None) -> Request:
        return Request(
            path=path,
            body=b'%b"messages":[%b]%b' % (beginning, messages, self.fields),
            repeatable=self.repeatable,
            stream=self.stream,
            context_id=context_id,
            serialize=self.serialize,
            headers=self.headers,
        )


def create_request(context: ContextRequest, headers: object = None) -> Request:
    """Build the POST that creates a context. Sent twice, the POST costs twice the storage and does no other harm."""
    return Request(path=CREATE_PATH, body=codec.encode(context), repeatable=True, headers=check_headers(headers))


def prepare_chat(
    model: str,
    messages: Iterable[Message] = (),
    *,
    stream: bool,
    repeatable: bool = False,
    serialize: bool | Unset = UNSET,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    timeouts: Timeouts = _TIMEOUTS,
    retry: Retry = _RETRY,
    options: Mapping[str, Any],
) -> PreparedChat:
    """Check and encode a chat, for any context.

    Args:
        model, stream, repeatable, serialize, extra_headers, extra_body: as in `ChatOptions`.
        messages: checked already.
        timeouts, retry: the limits and the retry policy in force.
        options: the optional fields of a `ChatRequest`, `stream` apart.

    Raises:
        InvalidInputError: names the field, the allowed values and the given value.
    """
    # Some gateways stream unless they are told not to.
    fields = {"model": checks.text("model", model), **check_options(options), "stream": stream}
    if extra_body is not None:
        extra = checks.json_mapping("extra_body", extra_body)
        for name in {"stream", "context_id", "messages"} & extra.keys():
            raise InvalidInputError.of(f"extra_body[{name!r}]", extra_body[name], "left out (the call sets it)")
        fields.update(extra)
    if serialize is not UNSET:
        checks.flag("serialize", serialize)
    replies = fields.get("n")
    return PreparedChat(
        messages=codec.encode_messages(messages),
        fields=b"," + codec.encode_fields(fields)[1:],
        replies=replies if isinstance(replies, int) else 1,
        stream=stream,
        repeatable=checks.flag("repeatable", repeatable),
        serialize=serialize,
        headers=check_headers(extra_headers),
        timeouts=timeouts,
        retry=retry,
    )


# RFC 9110: a field name is a token; a field value has no control characters but the tab. Of a lone surrogate aiohttp
# would send nothing.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_FRAMING = frozenset({"content-length", "transfer-encoding", "host", "connection", "content-encoding", "expect"})


def check_headers(headers: object, field: str = "extra_headers") -> dict[str, str]:
    """Check the caller's own headers and title-case the names; errors show no values, which may be secrets.

    Raises:
        InvalidInputError: for an invalid name or value, or a header that the transport must set.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidInputError.of(field, type(headers), "a mapping of strings, or None")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING:
            raise InvalidInputError.of(field, name, "a header name, and not of a header that frames the message")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            name, allowed = f"{field}[{name!r}]", "a string without control characters and lone surrogates"
            raise InvalidInputError(f"{name} must be {allowed}", field=name, allowed=allowed)
    return {name.title(): HiddenText(value) for name, value in headers.items()}


# --- answers ----------------------------------------------------------------------------------------------------------


def read_context(body: bytes, ids: Mapping[str, Any], request: ContextRequest, head: ResponseHead = NO_HEAD) -> Context:
    """Read the answer of a create; fields missing from the answer are filled in from the request.

    Raises:
        ProtocolError: for a body that is not a context.
        APIStatusError: for an error that came with a success status.
    """
    raise_error_inside(body)
    context = codec.decode_context(body, ids, head)
    given = context.raw
    filled: dict[str, Any] = {"model": context.model or request.model}
    if given.get("mode") is None and request.mode is not UNSET:
        filled["mode"] = request.mode
    if context.ttl is None and request.ttl is not UNSET:
        filled["ttl"] = request.ttl
    return attrs.evolve(context, **filled)


def read_completion(
    body: bytes, ids: Mapping[str, Any], head: ResponseHead = NO_HEAD, *, replies: int = 1
) -> ChatCompletion:
    """Read a plain answer of a chat; a whole stream of chunks, which some gateways send unasked, is folded.

    Args:
        body, ids, head: of the answer.
        replies: how many replies were asked for.

    Raises:
        ProtocolError: for a body that is not a completion.
        APIStatusError: for an error that came with a success status.
    """
    raise_error_inside(body)
    try:
        return codec.decode_completion(body, ids, head)
    except ProtocolError as error:
        problem = error
    if looks_like_events(body):
        return _folded(body, ids, head, replies)
    raise error_in(body) or problem


_EVENT_BEGINS: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:data|event|id|retry)?:")


def looks_like_events(beginning: bytes) -> bool:
    """Whether a body with this beginning is a stream of events, whatever the Content-Type says."""
    return _EVENT_BEGINS.match(beginning) is not None


def _folded(body: bytes, ids: Mapping[str, Any], head: ResponseHead, replies: int) -> ChatCompletion:
    decoder, fold = SSEDecoder(len(body) + 1), Fold(replies)
    chunks: list[ChatCompletionChunk] = []
    ended = read_events(decoder.feed_raw(body), chunks)
    fold.add(chunks)
    if fold.answered and (ended or is_done(decoder.leftover()) or fold.finished):
        return fold.completion(**ids, head=head)
    shown = body[:2000].decode("utf-8", "replace")
    raise ProtocolError("the server answered with a stream of events that is not whole", body=shown)


def is_done(data: bytes) -> bool:
    """Whether an event's data is the end marker, `[DONE]`."""
    return data.strip() == b"[DONE]"


# Names of events that carry chunks; `error` is an error. Events of any other name (`ping`, `heartbeat`) are ignored.
_CHUNK_EVENTS: Final = ("message", "chat.completion.chunk")
# Unnamed keep-alive data; any other data that is not a chunk is an error.
_HEARTBEAT: Final = re.compile(rb'[\s:]*"?(?:ping|pong|heart[ -]?beat|keep[ -]?alive|)"?\s*', re.IGNORECASE)


def read_events(events: Iterable[RawEvent], chunks: list[ChatCompletionChunk]) -> bool:
    """Append the chunks that a stream's events carry to `chunks`; return whether the end marker has come.

    Raises, after the chunks before the error are appended:
        ProtocolError: for data that is not a chunk.
        APIStatusError: for an error event.
    """
    decode, append = codec.decode_chunk, chunks.append
    for data, event, _, _ in events:
        if event != "message" or data[:1] != b"{":
            if is_done(data):
                return True
            if event == "error":
                raise error_inside(data)
            if event not in _CHUNK_EVENTS or _HEARTBEAT.fullmatch(data):
                continue
        try:
            chunk = decode(data)
        except ProtocolError as error:
            raise error_in(data) or error from None
        if chunk.error:  # a decoded field: searching the bytes of every chunk would take as long as decoding
            raise error_inside(data)
        if not chunk.choices and chunk.usage is None and not _is_chunk(data):
            continue
        append(chunk)
    return False


def _is_chunk(data: bytes) -> bool:
    """Whether an object without choices and without usage is still a chunk, as Azure's first chunks are.

    Raises:
        APIStatusError: for an error, in any shape of `error_bodies`.
    """
    error = error_in(data)
    if error is not None:
        raise error
    return b'"choices"' in data
