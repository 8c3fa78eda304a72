"""The gateway's refusals, in the service's words: each is an error of the package's family, sent as an envelope.

Statuses, codes and types are those of the vendor's documentation. For plain HTTP (404, 405, 413 and 415), which is not
documented, the nearest documented code is used, so that a client that decides by codes decides correctly.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from ...errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    InternalServerError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
)
from .raised import code_of, pause_of, status_of, usual_status

__all__ = [
    "bad_field",
    "bad_http",
    "bad_key",
    "bad_request",
    "busy",
    "context_full",
    "context_not_found",
    "engine_failed",
    "envelope",
    "event_envelope",
    "full",
    "memory_full",
    "method_not_allowed",
    "model_not_found",
    "no_connection",
    "not_json",
    "not_kept",
    "out_of_context",
    "overloaded",
    "path_not_found",
    "perhaps_kept",
    "shutting_down",
    "slow_head",
    "too_large",
    "too_many_calls",
    "too_many_requests",
    "too_many_tokens",
    "unreachable",
    "wrong_host",
]

_TYPES: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    417: "ExpectationFailed",
    421: "MisdirectedRequest",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


def envelope(error: APIStatusError, request_id: str) -> dict[str, Any]:
    """Return the JSON of an error in the service's form: `message` ends in the request's id (observed)."""
    kind = error.type or _TYPES.get(status_of(error), "InternalServerError")
    told = error.message.encode("utf-8", "replace").decode()  # JSON carries no lone surrogates
    message = f"{told} Request id: {request_id}"
    return {"error": {"code": code_of(error), "message": message, "param": error.param, "type": kind}}


def event_envelope(error: APIStatusError, request_id: str) -> dict[str, Any]:
    """Return the same for an event of a stream, which has no status line: an unusual status and a pause go in, too."""
    found = envelope(error, request_id)
    if (status := status_of(error)) != usual_status(error):
        found["error"]["status"] = status
    if (pause := pause_of(error)) is not None:
        found["error"]["retry_after"] = pause
    return found


# --- the request ------------------------------------------------------------------------------------------------------


def bad_request(param: str, message: str, status: int = 400) -> APIStatusError:
    """Refuse a parameter, a header, or the body (`param` "")."""
    return BadRequestError(message, status=status, code="InvalidParameter", param=param)


def bad_field(error: InvalidInputError) -> APIStatusError:
    """Refuse a request for a field that is missing, of the wrong type or out of range, as the models found."""
    top = re.match(r"\w*", error.field)
    param = top[0] if top else ""
    if error.value == "UNSET":
        message = f"The request is missing the parameter {error.field}, which must be {error.allowed}."
        return BadRequestError(message, status=400, code=f"MissingParameter.{param}", param=param)
    return bad_request(param, f"The parameter {error.message}.")


def not_json(reason: str) -> APIStatusError:
    """Refuse a body that cannot be read."""
    return bad_request("", f"The request body cannot be read: {reason}.")


def too_large(most: int) -> APIStatusError:
    """Refuse a body of more than `most` bytes."""
    message = f"The request body is larger than {most} bytes, more than the largest context window takes."
    return bad_request("", message, status=413)


def overloaded() -> APIStatusError:
    """Refuse a request for want of memory; nothing of the request ran."""
    message = "The requests under way take all the memory that is set aside for requests."
    return RateLimitError(message, status=429, code="ServerOverloaded", retry_after=1)


def bad_http() -> APIStatusError:
    """Refuse bytes that are not HTTP, without repeating any: a key may be among them."""
    return bad_request("", "The request is not valid HTTP, or its head is too large.")


def bad_key() -> APIStatusError:
    """Refuse a key, without repeating the key."""
    message = "The API key in the request is missing or invalid."
    return AuthenticationError(message, status=401, code="AuthenticationError")


def wrong_host() -> APIStatusError:
    """Refuse a request under a name that is none of this gateway's."""
    message = "The Host header must name this machine, such as localhost; other names must be allowed by the gateway."
    return bad_request("Host", message, status=421)


def slow_head(seconds: float) -> APIStatusError:
    """Refuse a request whose head does not come to an end."""
    return bad_request("", f"The head of the request did not come within {seconds:g} s.", status=408)


def no_connection(most: int) -> APIStatusError:
    """Refuse a connection; nothing ran."""
    message = f"There are {most} connections already."
    return RateLimitError(message, status=503, code="ServerOverloaded", retry_after=1)


def shutting_down() -> APIStatusError:
    """End an answer because the gateway ends; no turn is stored."""
    message = "The gateway is shutting down, and the answer was not complete."
    return RateLimitError(message, status=503, code="ServerOverloaded")


def path_not_found(paths: Iterable[str]) -> APIStatusError:
    """Refuse an unknown path, and name those to `POST` to."""
    message = f"There is no such path here: see {' and '.join(f'POST {path}' for path in paths)}."
    return NotFoundError(message, status=404, code="InvalidAction")


def method_not_allowed(allowed: str) -> APIStatusError:
    """Refuse a method that is not allowed."""
    return bad_request("", f"The method is not allowed here; {allowed} is.", status=405)


# --- contexts ---------------------------------------------------------------------------------------------------------


def model_not_found(model: str) -> APIStatusError:
    """Refuse a model that is not served."""
    message = f"The model or endpoint {_short(model)} does not exist or you do not have access to it."
    return NotFoundError(message, status=404, code="InvalidEndpointOrModel.NotFound", param="model")


def context_not_found(context_id: str) -> APIStatusError:
    """Refuse a context that has expired or never existed: the gateway cannot tell which."""
    message = f"The specified context {_short(context_id)} is not found, it may have expired."
    return ContextGoneError(message, status=404, code="NotFound.context_id", param="context_id")


def busy() -> APIStatusError:
    """Refuse a second call on a session context (vendor documentation)."""
    message = "The specified context is in invalid state: InProgress."
    return ContextBusyError(message, status=403, code="OperationDenied.InvalidState", param="context_id")


def out_of_context(tokens: int, window: int, *, or_more: bool = False) -> APIStatusError:
    """Refuse messages that do not fit the window, whatever is dropped."""
    counted = f"{tokens} tokens or more" if or_more else f"{tokens} tokens"
    message = f"The messages have {counted}, which leaves no room in the context window of {window}."
    return BadRequestError(message, status=400, code="OutofContextError", param="messages")


def full(most: int, *, of_key: bool = False) -> APIStatusError:
    """Refuse to create more than `most` contexts, of all or of a key."""
    beginning = f"The key has {most} contexts" if of_key else f"There are {most} contexts"
    return _over_quota(f"{beginning} already; contexts end by their ttl only.")


def memory_full(most: int, *, of_key: bool = False) -> APIStatusError:
    """Refuse messages that would let all contexts, of all or of a key, take more than `most` bytes together."""
    contexts = "All contexts of the key" if of_key else "All contexts together"
    message = f"{contexts} may take {most} bytes of memory, which leaves no room for these messages"
    return _over_quota(f"{message}; contexts end by their ttl only.")


def context_full(memory: int, most: int) -> APIStatusError:
    """Refuse messages that would let one context take more than `most` bytes."""
    message = f"The messages of a context may take {most} bytes of memory, and would take {memory}"
    return _over_quota(f"{message}; every field of a message counts.", "messages")


def _over_quota(message: str, param: str = "") -> APIStatusError:
    return QuotaExceededError(message, status=429, code="QuotaExceeded", param=param)


def too_many_calls(most: int) -> APIStatusError:
    """Refuse a call of a key beside `most` others; nothing ran."""
    message = f"The key has {most} calls under way, which are all that its limit allows."
    return RateLimitError(message, status=429, code="InflightBatchsizeExceeded", retry_after=1)


def too_many_requests(most: int, retry_after: float) -> APIStatusError:
    """Refuse a request of a key beyond `most` a minute; nothing ran."""
    message = f"The key may send {most} requests a minute, and has sent so many."
    return RateLimitError(message, status=429, code="APIAccountRpmRateLimitExceeded", retry_after=retry_after)


def too_many_tokens(most: int, retry_after: float) -> APIStatusError:
    """Refuse a call of a key that has used `most` tokens a minute; nothing ran."""
    message = f"The key may use {most} tokens a minute, and has used so many."
    return RateLimitError(message, status=429, code="ModelAccountTpmRateLimitExceeded", retry_after=retry_after)


def not_kept(problem: str) -> APIStatusError:
    """Refuse what the state could not keep; no context and no turn is stored."""
    message = f"The context or turn cannot be kept, and is not stored: {problem}."
    return RateLimitError(message, status=503, code="ServerOverloaded", retry_after=1)


def unreachable(problem: str) -> APIStatusError:
    """Refuse a call because the state of the contexts cannot be used; nothing ran."""
    message = f"The state that keeps the contexts cannot be used: {problem}."
    return RateLimitError(message, status=503, code="ServerOverloaded", retry_after=1)


def perhaps_kept() -> APIStatusError:
    """Report that the state did not say whether a turn is kept."""
    message = "The state that keeps the contexts cannot be reached; whether the turn is stored is unknown."
    return InternalServerError(message, status=500, code="InternalServiceError")


def engine_failed() -> APIStatusError:
    """Report that no answer, or only a part, could be made."""
    message = "The service encountered an unexpected internal error."
    return InternalServerError(message, status=500, code="InternalServiceError")


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:79]}…")
