"""The error tree. Plain data only: every error pickles, and none of them holds a key.

Cut by what the caller can do about it::

    CtxCacheError                       everything this package raises on purpose
    ├── InvalidInputError (ValueError)  fix the argument: nothing was sent
    ├── SessionError (RuntimeError)     fix the code: session closed, wrong event loop, stream misused
    ├── APIConnectionError              no connection, or (where a repeat is harmless) no answer: try later
    │   └── APITimeoutError             … because a time limit passed
    ├── APIStatusError                  the service answered with an error
    │   ├── BadRequestError             fix the request
    │   ├── AuthenticationError         fix the key
    │   ├── PermissionDeniedError       ask for access, pay the bill
    │   ├── NotFoundError               fix the model name
    │   │   └── ContextGoneError        the context expired or never was: create it again
    │   ├── ContextBusyError            another call runs on this session context: wait, then repeat
    │   ├── RateLimitError              slow down, then repeat
    │   ├── QuotaExceededError          raise the quota: repeating does not help
    │   └── InternalServerError         the service failed; also an OutcomeUnknownError
    ├── OutcomeUnknownError             it may have run: a session turn may have been stored
    │   ├── InternalServerError
    │   └── ProtocolError               the server sent what is not HTTP, JSON or SSE, or too much of it
    │       ├── EventTooLargeError      one event passed the decoder's limit
    │       └── MalformedStreamError    … in a stream
    └── StreamInterruptedError          the stream ended before its end: `partial` is what came
        └── MalformedStreamError

Whatever is *not* an `OutcomeUnknownError` or a `StreamInterruptedError` provably did not add a turn to a session
(or was sent where that cannot happen), so repeating it is safe.
"""

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
    "SessionError",
    "StreamInterruptedError",
]


class CtxCacheError(Exception):
    """The root of the family.

    Attributes:
        message: what happened, in one line.
        cause: the error of this family that led to it, or None.
        partial: the `ChatCompletion` folded from what a stream delivered before the error; None outside a stream.
        request_id: the service's id of the request (`X-Request-Id`), None where no answer came.
        log_id: the service's log id (`X-Tt-Logid`), or None.
        client_request_id: our id of the call (`X-Client-Request-Id`), the same over all its attempts.
        attempts: how many times the request was tried, the last one included; 0 where nothing was tried.
    """

    message: str
    cause: "CtxCacheError | None" = None
    partial: Any = None  # a models.ChatCompletion; this floor knows no models
    request_id: str | None = None
    log_id: str | None = None
    client_request_id: str | None = None
    attempts: int = 0

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(details)

    def __str__(self) -> str:
        known = not self.request_id or self.request_id in self.message  # the service often says it itself
        return self.message if known else f"{self.message} (request id {self.request_id})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[CtxCacheError], message: str, details: dict[str, Any]) -> CtxCacheError:
    error = kind(message)
    error.__dict__.update(details)
    return error


class InvalidInputError(CtxCacheError, ValueError):
    """An argument is out of its range or of the wrong type. Nothing was sent.

    Attributes:
        field: the argument, with its place: `ttl`, `messages[2].role`.
        value: the repr of what was given, shortened (None for secrets).
        allowed: what it must be, in words.
    """

    field: str = ""
    value: Any = None
    allowed: str = ""

    @classmethod
    def of(cls, field: str, value: object, allowed: str) -> "InvalidInputError":
        """Build the message that all such errors share: the field, what it must be, what was given."""
        try:
            shown = repr(value)
        except Exception:  # nested too deeply, or a broken __repr__
            shown = f"a {type(value).__name__}"
        if len(shown) > 80:
            shown = shown[:77] + "…"
        # The value is kept as its repr: anything may be given, and the error must pickle.
        return cls(f"{field} must be {allowed}, got {shown}", field=field, value=shown, allowed=allowed)


class SessionError(CtxCacheError, RuntimeError):
    """The session or stream cannot be used like this: it is closed, or belongs to another event loop or reader."""


class APIConnectionError(CtxCacheError):
    """No connection could be made, or it broke where sending again is harmless and every attempt was used up.

    Attributes:
        sent: whether the request had left before that (then it may have run).
        hopeless: whether trying again cannot help (a bad certificate).
    """

    sent: bool = False
    hopeless: bool = False


class APITimeoutError(APIConnectionError):
    """A time limit of `Timeouts` passed.

    Attributes:
        limit: which one: `connect`, `pool`, `head`, `idle` or `total`.
        seconds: its value.
    """

    limit: str = ""
    seconds: float = 0.0

    @classmethod
    def of(cls, limit: str, seconds: float | None, *, sent: bool = False, hopeless: bool = False) -> "APITimeoutError":
        """Build the one message all such errors share."""
        text = f"timed out after {seconds:g} s (Timeouts.{limit})"
        return cls(text, limit=limit, seconds=seconds, sent=sent, hopeless=hopeless)


class APIStatusError(CtxCacheError):
    """The service answered with an error.

    Attributes:
        status: the HTTP status; for an error event inside a stream the status of the same error outside one;
            None where this session itself noticed (a context held by the calling task).
        code: the service's code (`RateLimitExceeded.EndpointRPMExceeded`), "" where it sent none.
        type, param: as sent, "" where missing.
        body: the error's JSON as Python data, or the text of a body that is not JSON.
        retry_after: seconds the service asked to wait, or None.
    """

    status: int | None = None
    code: str = ""
    type: str = ""
    param: str = ""
    body: Any = None
    retry_after: float | None = None


class BadRequestError(APIStatusError):
    """The request is wrong, or its text was refused (400 and the other 4xx without a class of their own)."""


class AuthenticationError(APIStatusError):
    """The key is missing or wrong (401)."""


class PermissionDeniedError(APIStatusError):
    """The account may not do this (403)."""


class NotFoundError(APIStatusError):
    """No such model or endpoint (404)."""


class ContextGoneError(NotFoundError):
    """The context expired, or there never was one with this id. Create it again."""


class ContextBusyError(APIStatusError):
    """Another call is running on this session context (403 `OperationDenied.InvalidState`). This one did not run."""


class RateLimitError(APIStatusError):
    """Too many requests (429). This one did not run."""


class QuotaExceededError(APIStatusError):
    """A quota or spending limit is used up (429 with a quota code). Waiting does not help."""


class OutcomeUnknownError(CtxCacheError):
    """The request was sent and no trustworthy answer came: it may have run, a session turn may have been stored.

    Raised instead of sending again, since a turn sent twice may be stored, and billed, twice.
    """


class InternalServerError(APIStatusError, OutcomeUnknownError):
    """The service failed (5xx): whether before or after it did the work, nobody says."""


class ProtocolError(OutcomeUnknownError):
    """The server sent what is not HTTP, not JSON, not SSE, of the wrong shape, or too large.

    Attributes:
        body: the beginning of what it sent, as text (at most 2,000 characters); never part of the message.
    """

    body: str = ""


class EventTooLargeError(ProtocolError):
    """One server-sent event passed the decoder's `max_event_bytes`."""


class StreamInterruptedError(CtxCacheError):
    """The stream ended before its end. `partial` is the folded `ChatCompletion` so far; `cause` says why, if known."""


class MalformedStreamError(StreamInterruptedError, ProtocolError):
    """The stream ended before its end because what came was no event stream of chat completion chunks."""
