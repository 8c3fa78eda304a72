"""A call under way: attempts, times, errors, and the report at the end."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from .. import retry, wire
from ..config import Retry, Secret, Timeouts
from ..errors import APIConnectionError, APIStatusError, CtxCacheError, SessionError
from ..models import Usage
from ..response_head import NO_HEAD, ResponseHead, is_secret_name
from .cancellation import CancelScope
from .queues import ContextQueue
from .transport.evidence import Evidence

__all__ = ["Call", "ContextMissing"]


class ContextMissing(Exception):  # noqa: N818  # no error: the caller waits for a context, and sends again
    """There is no context to send on at this moment; nothing was sent."""


class Session(Protocol):
    """The part of a session's `Calls` that a call needs."""

    key: Secret
    headers: Mapping[str, str]

    def report(self, call: "Call", error: BaseException | None, /) -> None:
        """Add up the usage of a call that has ended, tell the hook, write the log line."""


_ECHOES: Final = frozenset({"message", "body", "code", "type", "param", "partial", "request_id", "log_id", "headers"})
_SECRET_FROM: Final = 8  # characters; a shorter value would match ordinary text


def secret_values(headers: Mapping[str, str]) -> list[Secret]:
    """Return the values of headers whose names suggest a secret."""
    return [Secret(value) for name, value in headers.items() if is_secret_name(name) and len(value) >= _SECRET_FROM]


class Call:
    """A call under way, made in the task that waits for the answer.

    Attributes:
        scope: the task's, until the answer or the head of the stream has come; then None, since a task holds the
            task's result, which may be the very stream of this call.
        request: the POST.
        choose: makes the POST of each attempt, at the moment of sending, or raises `ContextMissing`; None: all attempts
            send `request`.
        urgent: whether to wait for a connection at the front of the line.
        on_pause: told the seconds that a 429 asks to wait, unless the policy does not wait so long; or None.
        timeouts: the limits in force.
        policy: when to try again.
        client_request_id: our id, the same for all attempts.
        ids: the ids of the last answer, ready to be put on a model or an error.
        attempts: the tries so far.
        head: the head of the last answer; `NO_HEAD` until then.
        evidence: whether the last attempt's request may have reached the server.
        queue: the queue of the context, while this call is at the head; else None.
        usage: the usage, once known; else None.
        started, head_at, first_at: when the call began, the head came, the first chunk came, by the session's clock.
    """

    __slots__ = (
        "_closed_because",
        "_ended",
        "_session",
        "attempts",
        "choose",
        "client_request_id",
        "evidence",
        "first_at",
        "head",
        "head_at",
        "ids",
        "on_pause",
        "policy",
        "queue",
        "request",
        "scope",
        "started",
        "timeouts",
        "urgent",
        "usage",
    )

    def __init__(
        self,
        session: Session,
        request: wire.Request,
        timeouts: Timeouts,
        policy: Retry,
        client_request_id: str,
        started: float,
    ) -> None:
        self.scope: CancelScope | None = CancelScope()
        self.request = request
        self.choose: Callable[[], wire.Request] | None = None
        self.urgent = False
        self.on_pause: Callable[[float], object] | None = None
        self.timeouts = timeouts
        self.policy = policy
        self.client_request_id = client_request_id
        self.ids: dict[str, str | None] = {"client_request_id": client_request_id}
        self.attempts = 0
        self.head: ResponseHead = NO_HEAD
        self.evidence = Evidence()
        self.queue: ContextQueue | None = None
        self.usage: Usage | None = None
        self.started = started
        self.head_at: float | None = None
        self.first_at: float | None = None
        self._session = session
        self._closed_because = ""
        self._ended = False

    # --- the wait for the answer, which others may end

    def abort(self, reason: str) -> None:
        """Wake the task that waits for the answer, with an error that gives the reason."""
        self._closed_because = reason
        if self.scope is not None:
            self.scope.cancel()

    def error_of_abort(self) -> CtxCacheError:
        """Build the error for the task that `abort` woke."""
        if self.evidence.sent:
            return self.final(APIConnectionError(self._closed_because, sent=True, hopeless=True))
        return self.annotate(SessionError(f"{self._closed_because} before the request was sent"))

    def chosen(self) -> wire.Request:
        """Choose the request of an attempt, at the moment of sending."""
        if self.choose is not None:
            self.request = self.choose()
        return self.request

    def forget_body(self) -> None:
        """Let go of the request's body: the request was sent, and the stream may last."""
        request = self.request
        self.request = wire.Request(
            path=request.path,
            body=b"",
            repeatable=request.repeatable,
            stream=request.stream,
            context_id=request.context_id,
            headers=request.headers,
        )
        self.choose = None

    # --- errors

    def final(self, failure: CtxCacheError) -> CtxCacheError:
        """Return the error to raise for a failure that is not retried."""
        return self.annotate(retry.final_error(failure, repeatable=self.request.repeatable))

    def annotate(self, error: CtxCacheError) -> CtxCacheError:
        """Put ids and headers of the last answer on an error; redact the key and secret headers that the server echoes.

        The traceback so far is dropped, also from the causes: the frames hold the answer that was read.
        """
        error.__dict__.update({name: value for name, value in self.ids.items() if value is not None})
        error.__dict__["attempts"] = self.attempts
        if isinstance(error, APIStatusError) and self.head.status is not None:
            error.__dict__["headers"] = self.head
        secrets = [self._session.key, *secret_values(self.request.headers), *secret_values(self._session.headers)]
        link: CtxCacheError | None = error
        while link is not None:
            own = link.__dict__
            for name in _ECHOES & own.keys():
                for secret in secrets:
                    own[name] = secret.redact(own[name])
            link.args = (link.message,)
            link.__cause__ = link.cause
            link.__traceback__ = None
            link = link.cause
        return error

    # --- the end

    def end(self, error: BaseException | None = None) -> None:
        """Let the next call on the context begin, and report the end of this call, once."""
        if self._ended:
            return
        self._ended = True
        if self.queue is not None:
            self.queue.release()
            self.queue = None
        if not isinstance(error, ContextMissing):
            self._session.report(self, error)

    def log_line(self, error: BaseException | None, now: float) -> str:
        """Describe the call in a line: never content, never the key."""
        facts: dict[str, Any] = {"status": self.head.status, "attempt": self.attempts, **self.ids}
        for name, at in (("head", self.head_at), ("first_chunk", self.first_at), ("end", now)):
            if at is not None:
                facts[name] = f"{at - self.started:.3f}s"
        if (usage := self.usage) is not None:
            facts.update(prompt=usage.prompt_tokens, cached=usage.cached_tokens, completion=usage.completion_tokens)
        if error is not None:
            facts["error"] = type(error).__name__
        return f"POST {self.request.path} " + " ".join(f"{name}={value}" for name, value in facts.items())
