"""What an error must carry on the wire, so that a client raises the same class again. Pure.

An engine may raise `RateLimitError("slow")`: the class says all. On the wire the status and the code say the class, so
the missing ones are filled in here. A status or a code that was given stays.
"""

import math
from collections.abc import Mapping
from typing import Final

from ...errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)

__all__ = ["code_of", "pause_headers", "pause_of", "status_of", "usual_status"]

_USUAL: Final[Mapping[type[APIStatusError], tuple[int, str]]] = {
    BadRequestError: (400, "InvalidArgumentError"),  # `InvalidParameter` would leave the class to the message
    AuthenticationError: (401, "AuthenticationError"),
    PermissionDeniedError: (403, "AccessDenied"),
    ContextBusyError: (403, "OperationDenied.InvalidState"),
    NotFoundError: (404, "InvalidEndpointOrModel.NotFound"),
    ContextGoneError: (404, "NotFound.context_id"),
    RateLimitError: (429, "RateLimitExceeded"),
    QuotaExceededError: (429, "QuotaExceeded"),
    InternalServerError: (500, "InternalServiceError"),
    APIStatusError: (500, ""),
}


def _usual(error: APIStatusError) -> tuple[int, str]:
    return next(_USUAL[kind] for kind in type(error).__mro__ if kind in _USUAL)


def usual_status(error: APIStatusError) -> int:
    """Return the status that a client assumes for an error of this class inside a stream."""
    return _usual(error)[0]


def status_of(error: APIStatusError) -> int:
    """Return the HTTP status of an error: the error's own, where that is a status of errors, else that of the class."""
    return error.status if error.status is not None and 400 <= error.status <= 599 else usual_status(error)


def code_of(error: APIStatusError) -> str:
    """Return the code of an error: the error's own, else that of the class."""
    return error.code or _usual(error)[1]


def pause_of(error: APIStatusError) -> float | None:
    """Return `retry_after`, where that is a number of seconds that can be waited."""
    seconds = error.retry_after
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None


def pause_headers(error: APIStatusError) -> dict[str, str]:
    """Return the headers for `retry_after`: whole seconds, rounded up, and the milliseconds of a broken number."""
    seconds = pause_of(error)
    if seconds is None:
        return {}
    headers = {"Retry-After": str(math.ceil(seconds))}
    return headers if seconds == int(seconds) else {**headers, "Retry-After-Ms": f"{seconds * 1000:g}"}
