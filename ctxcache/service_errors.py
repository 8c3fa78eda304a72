"""Classifies errors: (status, body), or an event's data, → an error of the family. No other file chooses the class.

The code decides first (the part before the dot), since gateways change statuses more readily than codes; then the
status, of the answer or, inside a stream, as named in the body; then the type. So an error has the same class inside
and outside a stream.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from . import codec
from .error_bodies import is_error, read_error
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

__all__ = [
    "error_from_answer",
    "error_in",
    "error_inside",
    "error_instead_of_stream",
    "is_context_gone",
    "raise_error_inside",
]

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
    # OpenAI's, which gateways of other services speak.
    "invalid_api_key": AuthenticationError,
    "model_not_found": NotFoundError,
    "rate_limit_exceeded": RateLimitError,
    "insufficient_quota": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    "context_length_exceeded": BadRequestError,
    "server_error": InternalServerError,
}
# Types, and Google's status names: in lower case, without "_" and without "error" at the end.
_BY_TYPE: Final[Mapping[str, type[APIStatusError]]] = {
    **dict.fromkeys(["invalidrequest", "badrequest", "invalidargument", "validation", "outofrange"], BadRequestError),
    **dict.fromkeys(
        ["authentication", "invalidauthentication", "unauthenticated", "unauthorized"], AuthenticationError
    ),
    **dict.fromkeys(["permission", "permissiondenied", "forbidden", "accessdenied"], PermissionDeniedError),
    **dict.fromkeys(["notfound", "modelnotfound"], NotFoundError),
    **dict.fromkeys(["ratelimit", "ratelimitexceeded", "toomanyrequests", "resourceexhausted"], RateLimitError),
    **dict.fromkeys(["insufficientquota", "quotaexceeded", "billing"], QuotaExceededError),
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
_BODY_SHOWN: Final = 2000
_NOT_LETTERS: Final = re.compile("[^a-z]+")


def error_from_answer(status: int, body: bytes, *, retry_after: float | None = None) -> APIStatusError | ProtocolError:
    """Build the error of an answer whose status is not a success: any envelope, text, HTML or an empty body."""
    if status < 200:
        return ProtocolError(f"the server answered with status {status}, which is no answer to this request")
    details = read_error(body)
    if not details["message"] and 300 <= status < 400:
        details["message"] = (
            "the server answered with a redirect; redirects are not followed, since they would carry the API key: "
            "fix base_url"
        )
    return _make(status, details, retry_after)


def error_instead_of_stream(body: bytes, content_type: str) -> CtxCacheError:
    """Build the error of a body that came in place of an event stream."""
    return error_in(body) or ProtocolError(
        f"the answer must be text/event-stream, got {content_type or 'a body without a Content-Type'}",
        body=body[:_BODY_SHOWN].decode("utf-8", "replace"),
    )


# Searching for the key costs far less than a second parse; inside a JSON text the quotes would be escaped.
_ERROR_KEY: Final = b'"error"'


def raise_error_inside(body: bytes) -> None:
    """Raise the error of an answer whose status is a success, if the body is the service's error envelope."""
    if _ERROR_KEY in body:
        parsed = codec.decode_json(body)
        if isinstance(parsed, dict) and parsed.get("error"):
            raise error_inside(body)


def error_in(body: bytes) -> APIStatusError | None:
    """Return the error that a body carries, in any shape of `error_bodies`; None for a body that is not an error."""
    try:
        parsed = codec.decode_json(body)
    except ProtocolError:
        return None
    return error_inside(body) if is_error(parsed) else None


def error_inside(body: bytes) -> APIStatusError:
    """Build the error of a body that came with status 200, in place of an answer."""
    details = read_error(body)
    numeric = next((int(d) for d in (details["code"], details["status"]) if re.fullmatch(r"[45]\d\d", d)), None)
    return _make(numeric, details, _seconds(details["retry_after"]))


def _seconds(text: str) -> float | None:
    """Read the pause that an error event names; None if that is no number of seconds."""
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d+)?", text) else None


def _make(status: int | None, details: dict[str, Any], retry_after: float | None = None) -> APIStatusError:
    code, message = details["code"], details["message"]
    kind = _kind(status, details)
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


def _kind(status: int | None, details: Mapping[str, str]) -> type[APIStatusError]:
    code, message = details["code"], details["message"]
    if code == _BUSY or (not code and _BUSY_TEXT.search(message)):
        return ContextBusyError
    if is_context_gone(status, code, details["param"], message):
        return ContextGoneError
    by_code = _BY_CODE.get(code.partition(".")[0])
    if by_code is not None:
        return by_code
    if status is None:
        names = (
            _NOT_LETTERS.sub("", details[name].lower()).removesuffix("error") for name in ("type", "status", "code")
        )
        return next((_BY_TYPE[name] for name in names if name in _BY_TYPE), InternalServerError)
    if status >= 500 or status == 303:  # See Other: the POST was done, its answer is elsewhere
        return InternalServerError
    return _BY_STATUS.get(status, BadRequestError)


def is_context_gone(status: int | None, code: str, param: str, message: str) -> bool:
    """Whether an error says that the context expired or never existed: the only place that knows the forms seen.

    The service documents none of the forms. `status` is None for an error inside a stream.
    """
    if status not in (None, 400, 403, 404, 410):
        return False
    head = code.partition(".")[0]
    if head == "NotFound" or code in ("InvalidParameter.PreviousResponseNotFound", "invalid_context_id", "invalid_id"):
        return True
    if head == "InvalidParameter" and param in ("context_id", "previous_response_id"):
        return True
    # A message under a code of another meaning may mention a context, too; only messages under vague codes count.
    return head in ("", "InvalidParameter") and bool(_GONE_TEXT.search(message))
