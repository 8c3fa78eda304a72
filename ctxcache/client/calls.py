"""The life of a call: its turn on the context, its attempts and the pauses between them, its ids, its log line."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import retry, service_errors, wire
from ..config import UNSET, Limits, Retry, Secret, Timeouts
from ..errors import (
    APIConnectionError,
    APITimeoutError,
    ContextBusyError,
    CtxCacheError,
    InvalidInputError,
    SessionError,
)
from ..models import Usage
from .hooks import CallEvent, Hooks, Notifier, RetryEvent
from .queues import ContextQueue, ContextQueues

if TYPE_CHECKING:
    from .transport import Exchange, Transport

__all__ = ["Call", "Calls"]

T = TypeVar("T")
log: Final = logging.getLogger("ctxcache")


class Call:
    """One call under way.

    Attributes:
        request: what is sent.
        timeouts: the limits in force.
        policy: when to try again.
        client_request_id: our id, the same over all attempts.
        ids: the ids of the last answer, ready to be put on a model or an error.
        attempts: the tries so far.
        turn: the turn it holds on its context, or None.
        exchange: of an opened stream.
    """

    def __init__(
        self,
        request: wire.Request,
        timeouts: Timeouts,
        client_request_id: str,
        report: Callable[["Call", Usage | None, BaseException | None], None],
        policy: Retry,
    ) -> None:
        self.request = request
        self.timeouts = timeouts
        self.policy = policy
        self.client_request_id = client_request_id
        self.ids: dict[str, str | None] = {"client_request_id": client_request_id}
        self.attempts = 0
        self.status: int | None = None
        self.sent = False
        self.turn: ContextQueue | None = None
        self.exchange: Exchange  # set when a stream is opened
        self.started = time.monotonic()
        self.head_at: float | None = None
        self.first_at: float | None = None
        self.aborted = ""
        # While it runs only: a task holds its result, and that may be the very stream the call belongs to.
        self.task = asyncio.current_task()
        self.cancelling = self.task.cancelling() if self.task is not None else 0
        self._report = report
        self._ended = False

    def abort(self, reason: str) -> None:
        """Wake the call, wherever it waits for the head of its answer, with an error that gives the reason."""
        self.aborted = reason
        if self.task is not None:
            self.task.cancel()

    def release_turn(self) -> None:
        """Let the next call on the context begin."""
        if self.turn is not None:
            self.turn.release()
            self.turn = None

    def ended(self, failure: CtxCacheError | None) -> None:
        """Note that the stream has ended, if only by being closed or forgotten."""
        self.release_turn()
        self.end(error=failure)

    def end(self, usage: Usage | None = None, error: BaseException | None = None) -> None:
        """Report the end of the call, once."""
        if not self._ended:
            self._ended = True
            self._report(self, usage, error)

    def line(self, usage: Usage | None, error: BaseException | None) -> str:
        """Describe the call in one line: never content, never the key."""
        facts: dict[str, Any] = {"status": self.status, "attempt": self.attempts, **self.ids}
        for name, at in (("head", self.head_at), ("first_chunk", self.first_at), ("end", time.monotonic())):
            if at is not None:
                facts[name] = f"{at - self.started:.3f}s"
        if usage is not None:
            facts.update(prompt=usage.prompt_tokens, cached=usage.cached_tokens, completion=usage.completion_tokens)
        if error is not None:
            facts["error"] = type(error).__name__
        return f"POST {self.request.path} " + " ".join(f"{name}={value}" for name, value in facts.items())


class Calls:
    """Makes the calls of one session.

    The service's rules of what may be repeated are in `retry`; sleep, randomness and clock are parameters for tests.
    """

    def __init__(
        self,
        connect: Callable[[], "Transport"],
        key: Secret,
        *,
        timeouts: Timeouts,
        limits: Limits,
        policy: Retry,
        hooks: Hooks,
        client_request_id: str | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._key = key
        self._timeouts = timeouts
        self.limits = limits
        self.policy = policy
        self.hooks = Notifier(hooks)
        self.usage = Usage()
        self._client_request_id = client_request_id
        self._ids_begin = token_hex(12)  # one draw for all: the calls are numbered below it
        self._numbers = count()
        self._sleep = sleep
        self._random = random
        self._now = now
        self._transport: Transport | None = None
        self._closed = False
        self._pending: set[Call] = set()
        self.turns = ContextQueues()

    async def send(
        self,
        request: wire.Request,
        read: Callable[[bytes, dict[str, str | None]], T],
        timeouts: Timeouts | None,
        policy: Retry | None = None,
    ) -> T:
        """Make a plain call and read its answer.

        Raises:
            CtxCacheError: any of the family.
        """
        call = self.begin(request, timeouts, policy)

        async def receive(exchange: "Exchange") -> T:
            return read(await exchange.read_all(self.limits.body_bytes), call.ids)

        try:
            answer = await self._until_closed(call, receive)
        except BaseException as error:
            call.end(error=error)
            raise
        finally:
            call.release_turn()
        call.end(getattr(answer, "usage", None))
        return answer

    async def open(self, call: Call) -> None:
        """Make a streamed call; its `exchange` is at the head of the stream then, and gives back the turn at its end.

        Raises:
            CtxCacheError: any of the family.
        """

        async def receive(exchange: "Exchange") -> "Exchange":
            if exchange.content_type in ("application/json", "text/html"):
                body = await exchange.read_all(self.limits.body_bytes)
                raise service_errors.error_instead_of_stream(body, exchange.content_type)
            return exchange

        try:
            call.exchange = await self._until_closed(call, receive)
        except BaseException as error:
            call.release_turn()
            call.end(error=error)
            raise
        call.exchange.on_close = call.ended
        if (total := call.timeouts.total) is not None:
            call.exchange.limit_total(asyncio.get_running_loop().time() + total - (time.monotonic() - call.started))

    async def aclose(self) -> None:
        """Close the transport; calls that wait get a `SessionError`."""
        if self._transport is not None and self._transport.loop is not asyncio.get_running_loop():
            raise SessionError("the session belongs to another event loop: close it in that one")
        self._closed = True
        for call in list(self._pending):
            call.abort("the session was closed")
        if self._transport is not None:
            await self._transport.aclose()
        await self.hooks.aclose()

    @property
    def connected(self) -> bool:
        """Whether there is a transport to close."""
        return self._transport is not None

    def transport(self) -> "Transport":
        """The session's connections, made at the first use in the event loop of that use."""
        if self._closed:
            raise SessionError("the session is closed")
        if self._transport is None:
            self._transport = self._connect()
        elif self._transport.loop is not asyncio.get_running_loop():
            raise SessionError("the session belongs to another event loop: make one session in each")
        return self._transport

    def begin(self, request: wire.Request, timeouts: Timeouts | None, policy: Retry | None = None) -> Call:
        """Begin a call in the running task; nothing is sent yet.

        Raises:
            SessionError: the session is closed, or of another event loop.
            InvalidInputError: for time-outs or a retry policy that are none.
        """
        self.transport()
        if timeouts is not None and not isinstance(timeouts, Timeouts):
            raise InvalidInputError.of("timeouts", timeouts, "a Timeouts, or None for the session's")
        if policy is not None and not isinstance(policy, Retry):
            raise InvalidInputError.of("retry", policy, "a Retry, or None for the session's")
        own_id = request.headers.get("X-Client-Request-Id", self._client_request_id)
        if not own_id:
            own_id = f"{self._ids_begin}{next(self._numbers):08x}"
        limits = self._timeouts if timeouts is None else timeouts
        return Call(request, limits, own_id, self._report, self.policy if policy is None else policy)

    def _report(self, call: Call, usage: Usage | None, error: BaseException | None) -> None:
        """Add up what the call cost, tell the hook, write its line."""
        if usage is not None:
            self.usage += usage
        if self.hooks.hooks.on_call is not None:
            self.hooks.fire(
                "on_call",
                lambda: CallEvent(
                    path=call.request.path,
                    context_id=call.request.context_id,
                    stream=call.request.stream,
                    attempts=call.attempts,
                    seconds=time.monotonic() - call.started,
                    status=call.status,
                    usage=usage,
                    error=error,
                    **call.ids,
                ),
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", call.line(usage, error))

    async def _until_closed(self, call: Call, receive: Callable[["Exchange"], Awaitable[T]]) -> T:
        """Run the call, wherever it may be waiting, until the session is closed."""
        self._pending.add(call)
        try:
            if call.timeouts.total is None:
                return await self._repeated(call, receive)
            return await self._within_total(call, receive, call.timeouts.total)
        except asyncio.CancelledError:
            # As asyncio.timeout() does: ours only if nobody else cancelled the task as well.
            if not call.aborted or call.task is None or call.task.uncancel() > call.cancelling:
                raise
        finally:
            call.task = None
            self._pending.discard(call)
        if call.sent:
            raise self._final(call, APIConnectionError(call.aborted, sent=True, hopeless=True))
        raise self.annotate(SessionError(f"{call.aborted} before the request was sent"), call)

    async def _within_total(self, call: Call, receive: Callable[["Exchange"], Awaitable[T]], total: float) -> T:
        try:
            async with asyncio.timeout(total):
                return await self._repeated(call, receive)
        except TimeoutError:
            failure = APITimeoutError.of("total", total, sent=call.sent)
        raise self._final(call, failure)

    async def _repeated(self, call: Call, receive: Callable[["Exchange"], Awaitable[T]]) -> T:
        request = call.request
        if request.context_id is not None:
            known = request.serialize is UNSET and self.turns.is_serial(request.context_id)
            if known or request.serialize is True:
                call.turn = await self.turns.take(request.context_id)
        began = time.monotonic()
        while True:
            call.attempts += 1
            call.sent, call.status = False, None
            call.ids = {"client_request_id": call.client_request_id}
            try:
                return await receive(await self._open(call))
            except CtxCacheError as error:
                failure = error
            # What follows is outside the handler, so that no error hangs on another without need.
            if isinstance(failure, ContextBusyError) and request.context_id is not None:
                self.turns.mark_serial(request.context_id)
            delay = None
            if retry.may_repeat(failure, repeatable=request.repeatable) and not self._closed:
                elapsed = time.monotonic() - began
                delay = retry.next_delay(
                    call.policy, failure, attempt=call.attempts, elapsed=elapsed, jitter=self._random()
                )
            if delay is None:
                raise self._final(call, failure)
            which = f"attempt {call.attempts} of {call.policy.attempts}"
            ids = f"client request id {call.client_request_id}"
            log.warning(
                "POST %s: %s, %s, again in %.2f s (%s)", request.path, type(failure).__name__, which, delay, ids
            )
            self._tell_of_retry(call, failure, delay)
            call.sent = False  # of what follows, nothing
            await self._sleep(delay)

    def _tell_of_retry(self, call: Call, failure: CtxCacheError, delay: float) -> None:
        self.hooks.fire(
            "on_retry",
            lambda: RetryEvent(
                path=call.request.path,
                context_id=call.request.context_id,
                client_request_id=call.client_request_id,
                attempt=call.attempts,
                delay=delay,
                error=self.annotate(failure, call),
            ),
        )

    async def _open(self, call: Call) -> "Exchange":
        """Make one attempt; return only where the service accepted it."""
        transport = self.transport()
        evidence = transport.attempt(call.client_request_id)
        try:
            exchange = await transport.open(call.request, call.timeouts, evidence)
        finally:
            call.sent = evidence.sent
        call.head_at = time.monotonic()
        call.status = exchange.status
        call.ids = wire.answer_ids(exchange.headers, call.client_request_id)
        if self._key.is_in(*call.ids.values()):
            call.ids = self._key.redact(call.ids)
        if 200 <= exchange.status < 300:
            return exchange
        try:
            body = await exchange.read_all(self.limits.body_bytes)
        except CtxCacheError:
            body = b""  # the status says enough
        asked = retry.parse_retry_after(exchange.headers, self._now())
        raise service_errors.error_from_answer(exchange.status, body, retry_after=asked)

    def _final(self, call: Call, failure: CtxCacheError) -> CtxCacheError:
        return self.annotate(retry.final_error(failure, repeatable=call.request.repeatable), call)

    def annotate(self, error: CtxCacheError, call: Call) -> CtxCacheError:
        """Put the call's ids on an error, and blot out the key where the server echoed it."""
        own = error.__dict__
        own.update({name: value for name, value in call.ids.items() if value is not None})
        own["attempts"] = call.attempts
        for name in ("message", "body", "code", "type", "param"):
            if name in own:
                own[name] = self._key.redact(own[name])
        error.args = (error.message,)
        error.__cause__ = error.cause
        return error
