"""An error of a server → the service's. Pure.

A client must not take a server's trouble for its own: a wrong key is the gateway's affair, and a model that the server
lacks is no context that is gone. Messages of the server are passed on only where they are about the request.

=============================================  =====================================================================
the server                                     the client
=============================================  =====================================================================
too many tokens for the window                 400 `OutofContextError`
no such model                                  404 `InvalidEndpointOrModel.NotFound`
any other 4xx                                  400 `InvalidParameter` with the server's message; 413 and 415 as they are
429                                            429 `ServerOverloaded`, a quota 429 `QuotaExceeded`, with `Retry-After`
401, 403, any other 404, redirects             502: the gateway is set up wrongly, which the log tells
5xx                                            503 with `Retry-After`, 504, else 502
no connection; no answer in time               503; 504
the gateway has no file descriptor left        503
an answer cut off, or none of OpenAI's form    502
=============================================  =====================================================================
"""

import re
from typing import Final

from ....errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from ....models import ChatCompletion
from ....service_errors import is_context_gone
from ...rules.refusals import bad_request, model_not_found

__all__ = [
    "as_refusal",
    "blames_server",
    "check_finished",
    "check_replies",
    "hung_up",
    "may_go_elsewhere",
    "shows_health",
    "unreachable",
]

_UNAVAILABLE: Final = (502, 503, 504)
_WINDOW: Final = re.compile(
    r"exceed_context_size|context_length_exceeded|"
    r"\b(exceeds?|longer|maximum|larger|too long)\b.{0,80}\bcontext\b|"
    r"\bcontext (size|length|window)\b.{0,80}\b(exceed|limit)",
    re.IGNORECASE | re.DOTALL,
)
_MODEL: Final = re.compile(
    r"model_not_found|\b(unknown|no such) model\b|"
    r"\bmodel\b.{0,200}?\b(not found|not exist|not available|unknown|not loaded)\b",
    re.IGNORECASE | re.DOTALL,
)


def blames_server(error: CtxCacheError) -> bool:
    """Whether an error tells of trouble with the server itself, not with the request."""
    if isinstance(error, InternalServerError):
        return error.status in _UNAVAILABLE
    if isinstance(error, APIConnectionError):
        return not error.local
    return isinstance(error, StreamInterruptedError | ProtocolError)


def shows_health(error: CtxCacheError) -> bool:
    """Whether an error is the refusal of a server that is well: a 500 says nothing, and other errors arise here."""
    return isinstance(error, APIStatusError) and not isinstance(error, InternalServerError)


def may_go_elsewhere(error: CtxCacheError) -> bool:
    """Whether another server may be asked, where no part of an answer came: nothing is stored, so a repeat is harmless.

    Not after a time limit: another wait of that length helps nobody.
    """
    late = error.cause if isinstance(error, StreamInterruptedError) else error
    return blames_server(error) and not (isinstance(late, APITimeoutError) and late.sent)


def hung_up(error: CtxCacheError) -> bool:
    """Whether the request was sent and no answer came: the same server may answer over a new connection."""
    lost = error.cause if isinstance(error, StreamInterruptedError) else error
    return isinstance(lost, APIConnectionError) and lost.sent and not isinstance(lost, APITimeoutError)


def check_finished(answer: ChatCompletion) -> None:
    """Refuse half an answer: the end of a stream says nothing of a reply without a finish reason.

    Raises:
        StreamInterruptedError: a reply has none.
    """
    if any(choice.finish_reason is None for choice in answer.choices):
        raise StreamInterruptedError("the stream ended without a finish reason")


def check_replies(written: int, asked: int) -> None:
    """Refuse an answer that lacks replies.

    Raises:
        APIStatusError: the server wrote fewer than were asked for.
    """
    if written < asked:
        raise bad_request(
            "n", f"The model's server wrote {written} of {asked} replies: it does not know the parameter n."
        )


def as_refusal(error: CtxCacheError, model: str) -> APIStatusError:
    """Return the error for the client; `model` is the client's name of the model."""
    if isinstance(error, InvalidInputError):
        return bad_request(error.field, f"The parameter {error.message}.")
    if isinstance(error, APITimeoutError) or isinstance(error.cause, APITimeoutError):
        return _failed(504, "The model's server did not answer in time.")
    if isinstance(error, APIConnectionError):
        return (
            _failed(503, "The gateway has no file descriptor or memory for a connection.")
            if error.local
            else unreachable()
        )
    if not isinstance(error, APIStatusError):
        return _failed(502, "The answer of the model's server broke off.")
    if isinstance(error, QuotaExceededError | RateLimitError):
        return _too_fast(error)
    if isinstance(error, InternalServerError):
        status = error.status if error.status in (503, 504) else 502
        return _failed(status, "The model's server failed.", error.retry_after)
    return _about_the_request(error, model)


def unreachable(retry_after: float | None = None) -> APIStatusError:
    """Say that no server can be reached."""
    return _failed(503, "No server of the model can be reached.", retry_after)


def _failed(status: int, message: str, retry_after: float | None = None) -> APIStatusError:
    return InternalServerError(message, status=status, code="InternalServiceError", retry_after=retry_after)


def _too_fast(error: APIStatusError) -> APIStatusError:
    kind, code = (
        (QuotaExceededError, "QuotaExceeded")
        if isinstance(error, QuotaExceededError)
        else (RateLimitError, "ServerOverloaded")
    )
    message = "The model's server takes no more requests at the moment."
    return kind(message, status=429, code=code, retry_after=error.retry_after)


def _about_the_request(error: APIStatusError, model: str) -> APIStatusError:
    status, told = error.status or 400, _message(error)
    described = f"{error.code} {error.type} {told}"
    if status not in (401, 403) and _WINDOW.search(described):
        return BadRequestError(told, status=400, code="OutofContextError", param="messages")
    if status in (400, 404) and _MODEL.search(described):
        return model_not_found(model)
    if status < 400 or status in (401, 403, 404):
        return _failed(502, "The model's server refused the gateway.")
    if not told or is_context_gone(400, "InvalidParameter", error.param, told):  # nothing is known there of contexts
        told = "The model's server refused the request."
    return bad_request(error.param, told, status if status in (413, 415) else 400)


def _message(error: APIStatusError) -> str:
    """Return the server's own message, without what the client put in front."""
    prefix = f"{error.status} {error.code}: " if error.code else f"{error.status}: "
    return error.message.removeprefix(prefix)
