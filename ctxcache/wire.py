"""The wire: a call → its request; (status, headers, body) → model or error; an event → chunk, done or error.

Which error an answer is, is decided here and nowhere else: by the code first (the part before the dot), then by status,
since gateways change statuses more readily than codes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import attrs

from . import codec
from .config import UNSET
from .errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
)
from .models import ChatCompletion, ChatCompletionChunk, ChatRequest, Context, ContextRequest
from .sse import RawEvent
from .structs import empty, struct

__all__ = [
    "CHAT_PATH",
    "CREATE_PATH",
    "Request",
    "answer_ids",
    "chat_request",
    "create_request",
    "error_from_answer",
    "error_instead_of_stream",
    "is_context_gone",
    "is_done",
    "read_completion",
    "read_context",
    "read_events",
]

CREATE_PATH: Final = "/context/create"
CHAT_PATH: Final = "/context/chat/completions"


# --- requests ---------------------------------------------------------------------------------------------------------


@struct()
class Request:
    """One POST, ready to be sent as often as need be.

    Attributes:
        path: below the base URL.
        body: the JSON, encoded once.
        repeatable: whether sending it twice does no harm.
        stream: whether the answer is to be a stream of events.
        context_id: the context it runs on, None for a create.
        serialize: whether to wait for this session's other calls on that context; `UNSET`: where that is needed.
        headers: the caller's own, for this call.
    """

    path: str
    body: bytes
    repeatable: bool
    stream: bool = False
    context_id: str | None = None
    serialize: Any = UNSET
    headers: Mapping[str, str] = empty()


def create_request(context: ContextRequest, headers: object = None) -> Request:
    """Build the POST that creates a context. Made twice, a context costs its storage twice and does no other harm."""
    return Request(path=CREATE_PATH, body=codec.encode(context), repeatable=True, headers=check_headers(headers))


def chat_request(
    chat: ChatRequest, *, repeatable: bool = False, serialize: Any = UNSET, headers: object = None
) -> Request:
    """Build the POST that chats on a context."""
    if not isinstance(repeatable, bool):
        raise InvalidInputError.of("repeatable", repeatable, "True or False")
    if serialize is not UNSET and not isinstance(serialize, bool):
        raise InvalidInputError.of("serialize", serialize, "True, False or left out")
    for name in {"stream", "context_id"} & chat.extra.keys():
        raise InvalidInputError.of(f"extra_body[{name!r}]", chat.extra[name], "left out (the call sets it)")
    return Request(
        path=CHAT_PATH,
        body=codec.encode(chat),
        repeatable=repeatable,
        stream=chat.stream is True,
        context_id=chat.context_id,
        serialize=serialize,
        headers=check_headers(headers),
    )


# RFC 9110: a field name is a token; a field value has no control characters but the tab.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_FRAMING = frozenset({"content-length", "transfer-encoding", "host", "connection", "content-encoding", "expect"})


def check_headers(headers: object, field: str = "extra_headers") -> dict[str, str]:
    """Check the caller's own headers and spell their names in one way; values, which may be secrets, are not shown.

    Raises:
        InvalidInputError: for what no header may be, or what the transport itself must decide.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidInputError.of(field, type(headers), "a mapping of strings, or None")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING:
            raise InvalidInputError.of(field, name, "a header name, and not of a header that frames the message")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidInputError(
                f"{field}[{name!r}] must be a string without control characters", field=f"{field}[{name!r}]"
            )
    return {name.title(): value for name, value in headers.items()}


# --- answers ----------------------------------------------------------------------------------------------------------


def answer_ids(headers: Mapping[str, str], client_request_id: str) -> dict[str, str | None]:
    """Read an answer's ids from its headers (a case-insensitive mapping); see `CtxCacheError` for what each is."""
    return {
        "request_id": headers.get("X-Request-Id"),
        "log_id": headers.get("X-Tt-Logid"),
        "client_request_id": client_request_id,
    }


def read_context(body: bytes, ids: Mapping[str, Any], asked: ContextRequest) -> Context:
    """Read the answer of a create; what it leaves out and the caller asked for is filled in from `asked`.

    Raises:
        ProtocolError: for what is no context.
        APIStatusError: for an error that came with a good status.
    """
    _raise_error_inside(body)
    context = codec.decode_context(body, ids)
    given = context.raw
    filled: dict[str, Any] = {"model": context.model or asked.model}
    if given.get("mode") is None and asked.mode is not UNSET:
        filled["mode"] = asked.mode
    if context.ttl is None and asked.ttl is not UNSET:
        filled["ttl"] = asked.ttl
    changed: Context = attrs.evolve(cast(Any, context), **filled)
    return changed


def read_completion(body: bytes, ids: Mapping[str, Any]) -> ChatCompletion:
    """Read a plain answer of a chat.

    Raises:
        ProtocolError: for what is no completion.
        APIStatusError: for an error that came with a good status.
    """
    _raise_error_inside(body)
    return codec.decode_completion(body, ids)


def is_done(data: bytes) -> bool:
    """Whether an event's data is the end marker, `[DONE]`."""
    return data.strip() == b"[DONE]"


def read_events(events: Iterable[RawEvent], chunks: list[ChatCompletionChunk]) -> bool:
    """Append to `chunks` those that the events of a stream carry; return whether the end marker has come.

    Raises, once those before it are appended:
        ProtocolError: for what is no chunk.
        APIStatusError: for an error event.
    """
    decode, append = codec.decode_chunk, chunks.append
    for data, event, _, _ in events:
        if data[:1] != b"{" and is_done(data):
            return True
        if event == "error":
            raise _error_inside(data)
        try:
            chunk = decode(data)
        except ProtocolError:
            _raise_error_inside(data)
            raise
        if chunk.error:  # a field of the chunk: a search for it in every chunk would take as long as decoding it
            raise _error_inside(data)
        append(chunk)
    return False


# --- errors -----------------------------------------------------------------------------------------------------------

_BY_CODE: Final[Mapping[str, type[APIStatusError]]] = {
    **dict.fromkeys(
        [
            "MissingParameter",
            "InvalidParameter",
            "OutofContextError",
            "SensitiveContentDetected",
            "InputTextSensitiveContentDetected",
            "OutputTextSensitiveContentDetected",
            "InvalidArgumentError",
        ],
        BadRequestError,
    ),
    "AuthenticationError": AuthenticationError,
    **dict.fromkeys(["AccessDenied", "AccountOverdueError", "OperationDenied"], PermissionDeniedError),
    **dict.fromkeys(["InvalidEndpointOrModel", "ModelNotOpen", "UnsupportedModel"], NotFoundError),
    **dict.fromkeys(
        [
            "RateLimitExceeded",
            "ModelAccountRpmRateLimitExceeded",
            "ModelAccountTpmRateLimitExceeded",
            "APIAccountRpmRateLimitExceeded",
            "AccountRateLimitExceeded",
            "ServerOverloaded",
            "RequestBurstTooFast",
            "InflightBatchsizeExceeded",
        ],
        RateLimitError,
    ),
    **dict.fromkeys(["QuotaExceeded", "SetLimitExceeded"], QuotaExceededError),
    "InternalServiceError": InternalServerError,
}
_BY_STATUS: Final[Mapping[int, type[APIStatusError]]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
# The status an error inside a stream would have had outside one.
_STATUS_OF: Final[Mapping[type[APIStatusError], int]] = {
    BadRequestError: 400,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    ContextBusyError: 403,
    NotFoundError: 404,
    ContextGoneError: 404,
    RateLimitError: 429,
    QuotaExceededError: 429,
    InternalServerError: 500,
}
_BUSY: Final = "OperationDenied.InvalidState"
_BUSY_TEXT: Final = re.compile(r"\bcontext\b.{0,200}?\binvalid state\b", re.IGNORECASE | re.DOTALL)
_GONE_TEXT: Final = re.compile(
    r"\bcontext(?:_id)?\b(?! (?:length|window)).{0,200}?(not found|expired|invalid(?! state)|does not exist)",
    re.IGNORECASE | re.DOTALL,
)
_REQUEST_ID: Final = re.compile(r"request id: *([\w.-]+)", re.I)
_MESSAGE_SHOWN: Final = 500
_NESTING: Final = 200


def error_from_answer(status: int, body: bytes, *, retry_after: float | None = None) -> APIStatusError | ProtocolError:
    """Make the error of an answer whose status is not a success: any envelope, text, HTML or nothing."""
    if status < 200:
        return ProtocolError(f"the server answered with status {status}, which is no answer to this request")
    details = _details(body)
    if not details["message"] and 300 <= status < 400:
        details["message"] = "the server redirects, which is not followed with a key: mend the base URL"
    return _make(status, details, retry_after)


def error_instead_of_stream(body: bytes, content_type: str) -> CtxCacheError:
    """Make the error of a body that is no event stream, where one was promised."""
    try:
        _raise_error_inside(body)
    except CtxCacheError as error:
        return error
    shown = body[:2000].decode("utf-8", "replace")
    return ProtocolError(f"the server answered {content_type} where it promised text/event-stream", body=shown)


# The search for it costs far less than a second parse; text that quotes the word has its quotes escaped.
_ERROR_KEY: Final = b'"error"'


def _raise_error_inside(body: bytes) -> None:
    if _ERROR_KEY in body:
        parsed = codec.decode_json(body)
        if isinstance(parsed, dict) and parsed.get("error"):
            raise _error_inside(body)


def _error_inside(body: bytes) -> APIStatusError:
    """Make the error of an envelope that came where an answer was promised, with status 200."""
    details = _details(body)
    numeric = next((int(d) for d in (details["code"], details["status"]) if re.fullmatch(r"[45]\d\d", d)), None)
    return _make(numeric, details)


def _make(status: int | None, details: dict[str, Any], retry_after: float | None = None) -> APIStatusError:
    code, message = details["code"], details["message"]
    kind = _kind(status, code, details["param"], message)
    if status is None:
        status = _STATUS_OF[kind]
    found = _REQUEST_ID.search(message)
    return kind(
        f"{status} {code}: {message}" if code else f"{status}: {message}",
        status=status,
        code=code,
        type=details["type"],
        param=details["param"],
        body=details["body"],
        retry_after=retry_after,
        request_id=found[1] if found else None,
    )


def _kind(status: int | None, code: str, param: str, message: str) -> type[APIStatusError]:
    if code == _BUSY or (not code and _BUSY_TEXT.search(message)):
        return ContextBusyError
    if is_context_gone(status, code, param, message):
        return ContextGoneError
    by_code = _BY_CODE.get(code.partition(".")[0])
    if by_code is not None:
        return by_code
    if status is None or status >= 500 or status == 303:  # See Other: the POST was done, its answer is elsewhere
        return InternalServerError
    return _BY_STATUS.get(status, BadRequestError)


def is_context_gone(status: int | None, code: str, param: str, message: str) -> bool:
    """Whether an error says that the context expired or never was: the one place that knows the forms seen.

    None of them is documented by the service. `status` is None for an error inside a stream.
    """
    if status not in (None, 400, 403, 404, 410):
        return False
    head = code.partition(".")[0]
    if head == "NotFound" or code in ("InvalidParameter.PreviousResponseNotFound", "invalid_context_id", "invalid_id"):
        return True
    if head == "InvalidParameter" and param in ("context_id", "previous_response_id"):
        return True
    # Codes that mean something else may well speak of a context; those without a meaning of their own are believed.
    return head in ("", "InvalidParameter") and bool(_GONE_TEXT.search(message))


def _details(body: bytes) -> dict[str, Any]:
    """The envelope's fields as strings, "" where missing, and the whole as `body`."""
    try:
        parsed = codec.decode_json(body) if body else ""
    except ProtocolError as error:
        parsed = error.body
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    fields = inner if isinstance(inner, dict) else {}
    text = inner if isinstance(inner, str) else fields.get("message") or fields.get("detail") or ""
    details: dict[str, Any] = {name: _string(fields.get(name)) for name in ("code", "type", "param", "status")}
    message = " ".join(_string(text).split())
    if message.startswith("<"):
        message = "(an HTML page)"
    details["message"] = message if len(message) <= _MESSAGE_SHOWN else message[: _MESSAGE_SHOWN - 1] + "…"
    # What may be nested deeper than any envelope stays text: whoever walks, prints or pickles it would not come back.
    nested = body.count(b"[") + body.count(b"{") > _NESTING
    details["body"] = body.decode("utf-8", "replace") if nested else parsed
    return details


def _string(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
