"""The error tree. Errors are plain data: every error pickles, and no error holds a key.

Errors are grouped by what the caller can do::

    CtxCacheError                       the root: everything this package raises on purpose
    ├── InvalidInputError (ValueError)  fix the argument: nothing was sent
    ├── SessionError (RuntimeError)     fix the code: session closed, wrong event loop, stream misused
    │   └── TurnInDoubtError            the outcome of a conversation's last turn is unknown: call `resync`
    ├── APIConnectionError              no connection, or (where a repeat is harmless) no answer: try later
    │   ├── APITimeoutError (TimeoutError)  … because a time limit passed
    │   │   └── ReplyTimeoutError
    │   └── ReplyLostError              the request was sent and its reply lost; also an OutcomeUnknownError
    │       └── ReplyTimeoutError       … because a time limit passed; also an APITimeoutError
    ├── APIStatusError                  the service answered with an error
    │   ├── BadRequestError             fix the request
    │   ├── AuthenticationError         fix the key
    │   ├── PermissionDeniedError       ask for access, pay the bill
    │   ├── NotFoundError               fix the model name
    │   │   └── ContextGoneError        the context expired or never existed: create a context
    │   ├── ContextBusyError            another call runs on this session context: wait, then repeat
    │   ├── RateLimitError              slow down, then repeat
    │   ├── QuotaExceededError          raise the quota: repeating does not help
    │   └── InternalServerError         the service failed; also an OutcomeUnknownError
    ├── OutcomeUnknownError             the request may have run: a session turn may have been stored
    │   ├── InternalServerError
    │   ├── ReplyLostError
    │   └── ProtocolError               the answer is not HTTP, JSON or SSE, or too large
    │       ├── EventTooLargeError      one event passed the decoder's limit
    │       └── MalformedStreamError    … in a stream
    └── StreamInterruptedError          the stream ended early: `partial` holds the answer so far
        └── MalformedStreamError

A call that failed with any other error than `OutcomeUnknownError` or `StreamInterruptedError` provably added no turn to
a session (or could not have), so repeating the call is safe.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ContextBusyError",
    "ContextGoneError",
    "CtxCacheError",
    "EventTooLargeError",
    "InternalServerError",
    "InvalidInputError",
    "MalformedStreamError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "ProtocolError",
    "QuotaExceededError",
    "RateLimitError",
    "ReplyLostError",
    "ReplyTimeoutError",
    "SessionError",
    "StreamInterruptedError",
    "TurnInDoubtError",
]


class CtxCacheError(Exception):
    """The root of the error tree.

    Attributes:
        message: what happened, in one line.
        cause: the error of this package that led to this error, or None.
        partial: the `ChatCompletion` a stream had delivered before the error; None outside a stream.
        request_id: the service's id of the request (`X-Request-Id`); None if no answer came.
        log_id: the service's log id (`X-Tt-Logid`), or None.
        client_request_id: this client's id of the call (`X-Client-Request-Id`), the same for all attempts.
        attempts: the number of attempts made, the last included; 0 if nothing was sent.
    """

    message: str
    cause: "CtxCacheError | None" = None
    partial: Any = None  # a models.ChatCompletion; this floor imports no models
    request_id: str | None = None
    log_id: str | None = None
    client_request_id: str | None = None
    attempts: int = 0

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(details)

    def __str__(self) -> str:
        known = not self.request_id or self.request_id in self.message  # the service often puts the id into the message
        return self.message if known else f"{self.message} (request id {self.request_id})"

    def to_dict(self) -> dict[str, Any]:
        """Return `message`, `type` (the name of the class) and `code` (of the service, or None), as JSON data."""
        return {"message": self.message, "type": type(self).__name__, "code": getattr(self, "code", None) or None}

    def __copy__(self) -> "CtxCacheError":
        # Without the traceback, also where a library (tblib, which Dask loads) makes copies of exceptions keep theirs.
        return _restore(type(self), self.message, self.__dict__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[CtxCacheError], message: str, details: dict[str, Any]) -> CtxCacheError:
    error = kind(message)
    error.__dict__.update(details)
    return error


class InvalidInputError(CtxCacheError, ValueError):
    """An argument is out of range or of the wrong type. Nothing was sent.

    Attributes:
        field: the argument, with its place: `ttl`, `messages[2].role`.
        value: the repr of the given value, shortened (None for secrets).
        allowed: the allowed values, in words.
    """

    field: str = ""
    value: Any = None
    allowed: str = ""

    @classmethod
    def of(cls, field: str, value: object, allowed: str) -> "InvalidInputError":
        """Build the error `{field} must be {allowed}, got {value}`."""
        try:
            shown = repr(value)
        except Exception:  # nested too deeply, or a broken __repr__
            shown = f"a {type(value).__name__}"
        if len(shown) > 80:
            shown = shown[:77] + "…"
        # Only the repr is kept: any object may be given, and the error must pickle.
        return cls(f"{field} must be {allowed}, got {shown}", field=field, value=shown, allowed=allowed)

    def within(self, place: str) -> "InvalidInputError":
        """Return the same error for a field that is part of another: `role` within `messages[2]`."""
        field = f"{place}.{self.field}"
        message = f"{field}{self.message.removeprefix(self.field)}"
        return type(self)(message, field=field, value=self.value, allowed=self.allowed)


class SessionError(CtxCacheError, RuntimeError):
    """The session or stream is closed, or belongs to another event loop or another reading task."""


class TurnInDoubtError(SessionError):
    """A turn was refused, since the outcome of the conversation's last turn is unknown. Nothing was sent.

    No `OutcomeUnknownError`: such an error told of the last turn, which may have run; the refused turn did not. `cause`
    is that error; None where the last turn was cancelled, or its stream left, or the conversation was loaded since.

    Attributes:
        context_id: the context that may hold the last turn; None if that is another account's.
    """

    context_id: str | None = None


class APIConnectionError(CtxCacheError):
    """No connection could be made; or the connection broke, a repeat was harmless, and all attempts were used up.

    Attributes:
        sent: whether the request had been sent by then, and so may have run.
        hopeless: whether another attempt cannot help (a bad certificate, the end of `Timeouts.pool` or `total`).
        local: whether this machine lacked a file descriptor or memory for the connection; the server is not to blame.
    """

    sent: bool = False
    hopeless: bool = False
    local: bool = False


class APITimeoutError(APIConnectionError, TimeoutError):
    """A time limit of `Timeouts` passed.

    Attributes:
        limit: the name of the limit: `connect`, `pool`, `head`, `idle` or `total`.
        seconds: the value of the limit.
    """

    limit: str = ""
    seconds: float = 0.0

    @classmethod
    def of(cls, limit: str, seconds: float | None, *, sent: bool = False, through: str = "") -> "APITimeoutError":
        """Build the error `timed out after {seconds} s (Timeouts.{limit}), through {through}`."""
        text = f"timed out after {seconds:g} s (Timeouts.{limit})" + (f", through {through}" if through else "")
        return cls(text, limit=limit, seconds=seconds, sent=sent, hopeless=limit in ("pool", "total"))


class APIStatusError(CtxCacheError):
    """The service answered with an error.

    Attributes:
        status: the HTTP status; for an error event inside a stream the status of the same error outside one;
            None if this session raised the error itself (a context held by the calling task).
        code: the service's code (`RateLimitExceeded.EndpointRPMExceeded`), "" if missing.
        type, param: as sent, "" if missing.
        body: the error's JSON as Python data, or the text of a body that is not JSON.
        retry_after: seconds the service asked to wait, or None.
        headers: of the response, a mapping with names in any case; empty if no answer came.
    """

    status: int | None = None
    code: str = ""
    type: str = ""
    param: str = ""
    body: Any = None
    retry_after: float | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class BadRequestError(APIStatusError):
    """The request is wrong, or its content was refused (400, and every 4xx that has no class here)."""


class AuthenticationError(APIStatusError):
    """The key is missing or wrong (401)."""


class PermissionDeniedError(APIStatusError):
    """The account may not do this (403)."""


class NotFoundError(APIStatusError):
    """No such model or endpoint (404)."""


class ContextGoneError(NotFoundError):
    """The context expired or never existed. Create a context."""


class ContextBusyError(APIStatusError):
    """A call is running on this session context already (403 `OperationDenied.InvalidState`). This call did not run."""


class RateLimitError(APIStatusError):
    """Too many requests (429). This call did not run."""


class QuotaExceededError(APIStatusError):
    """A quota or spending limit is used up (429 with a quota code). Waiting does not help."""


class OutcomeUnknownError(CtxCacheError):
    """The request was sent and no trustworthy answer came: the request may have run and stored a session turn.

    The request is not sent again, since a turn sent twice may be stored, and billed, twice.
    """


class ReplyLostError(OutcomeUnknownError, APIConnectionError):
    """The request was sent, then the connection broke: the request may have run."""


class ReplyTimeoutError(ReplyLostError, APITimeoutError):
    """The request was sent, then a time limit passed: the request may have run."""


class InternalServerError(APIStatusError, OutcomeUnknownError):
    """The service failed (5xx), before or after doing the work."""


class ProtocolError(OutcomeUnknownError):
    """The answer is not HTTP, JSON or SSE, has the wrong shape, or is too large.

    Attributes:
        body: the first 2,000 characters of the answer; never part of the message.
    """

    body: str = ""


class EventTooLargeError(ProtocolError):
    """One server-sent event passed the decoder's `max_event_bytes`."""


class StreamInterruptedError(CtxCacheError):
    """The stream ended early. `partial` is the `ChatCompletion` so far; `cause` is the reason, if known."""


class MalformedStreamError(StreamInterruptedError, ProtocolError):
    """The stream ended early: the server did not send an event stream of chat completion chunks."""
