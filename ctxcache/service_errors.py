"""Which error a body is: (status, body), or an event's data, → an error of the family. Decided here and nowhere else.

By the code first (the part before the dot), then by the status, since gateways change statuses more readily than codes.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from . import codec
from .errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
)

__all__ = ["error_from_answer", "error_inside", "error_instead_of_stream", "is_context_gone", "raise_error_inside"]

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
        details["message"] = (
            "the server answered with a redirect; redirects are not followed, since they would carry the API key: "
            "fix base_url"
        )
    return _make(status, details, retry_after)


def error_instead_of_stream(body: bytes, content_type: str) -> CtxCacheError:
    """Make the error of a body that is no event stream, where one was promised."""
    try:
        raise_error_inside(body)
    except CtxCacheError as error:
        return error
    shown = body[:2000].decode("utf-8", "replace")
    return ProtocolError(f"the server answered {content_type} where it promised text/event-stream", body=shown)


# The search for it costs far less than a second parse; text that quotes the word has its quotes escaped.
_ERROR_KEY: Final = b'"error"'


def raise_error_inside(body: bytes) -> None:
    """Raise the error that a body carries although its status is a success."""
    if _ERROR_KEY in body:
        parsed = codec.decode_json(body)
        if isinstance(parsed, dict) and parsed.get("error"):
            raise error_inside(body)


def error_inside(body: bytes) -> APIStatusError:
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
    # Deeper nesting than any envelope's stays text: a recursive walk, repr or pickle would exceed the recursion limit.
    nested = body.count(b"[") + body.count(b"{") > _NESTING
    details["body"] = body.decode("utf-8", "replace") if nested else parsed
    return details


def _string(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
