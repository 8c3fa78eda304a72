"""The calls of a session: each waits for the context, is sent, and is retried where that is safe."""

import asyncio
import copy
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from .. import retry, service_errors, wire
from ..config import UNSET, Limits, Retry, Secret, Timeouts
from ..errors import APITimeoutError, ContextBusyError, CtxCacheError, RateLimitError, SessionError
from ..log import log
from ..models import Usage
from ..response_head import NO_HEAD, ResponseHead
from .call import Call
from .environment import Environment
from .hooks import CallEvent, Hooks, Notifier, RetryEvent
from .queues import ContextQueues
from .transport.evidence import Evidence

if TYPE_CHECKING:
    from .transport.exchange import Exchange
    from .transport.transport import Transport

__all__ = ["Calls", "outage_awaited"]

T = TypeVar("T")

# Whether the caller waits for a service that cannot be reached, with other calls in view: then no call waits by itself.
outage_awaited: Final = ContextVar("outage_awaited", default=False)

_NO_STREAM: Final = ("application/json", "application/problem+json", "text/html")


class Calls:
    """Makes the calls of a session. `retry` says which failures may be repeated.

    Attributes:
        key, headers, timeouts, limits, policy, environment: the session's.
        notifier: calls the session's hooks.
        further_headers: those that `with_options` added, for every call.
        queues: the calls that wait for a turn on a context.
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
        headers: Mapping[str, str],
        client_request_id: str | None = None,
        environment: Environment,
    ) -> None:
        self.key = key
        self.headers = headers
        self.limits = limits
        self.notifier = Notifier(hooks, environment.grace)
        self._usage = Usage()
        self.queues = ContextQueues()
        self._connect = connect
        self.timeouts = timeouts
        self.policy = policy
        self._client_request_id = client_request_id
        self.environment = environment
        self._ids_begin = token_hex(12)  # drawn once: the calls are numbered below it
        self._numbers = count()
        self.further_headers: Mapping[str, str] = {}
        self._root = self  # holds what is shared with the sessions that `with_options` makes
        self._transport: Transport | None = None
        self._closed = False
        self._pending: set[Call] = set()

    def with_options(self, timeouts: Timeouts, policy: Retry, headers: Mapping[str, str]) -> "Calls":
        """Return calls with other settings over the same connections; they do not close them."""
        other = copy.copy(self)
        other.timeouts, other.policy = timeouts, policy
        other.further_headers = {**self.further_headers, **headers}
        return other

    def with_headers(self, own: object) -> object:
        """Return a call's own headers, which are checked later, on top of those of `with_options`."""
        return {**self.further_headers, **own} if isinstance(own, Mapping) else own or self.further_headers

    @property
    def usage(self) -> Usage:
        """The sum over all calls that have ended, shared as the connections are."""
        return self._root._usage

    # --- making a call

    def begin(
        self,
        request: wire.Request,
        timeouts: Timeouts,
        policy: Retry,
        *,
        waited: float = 0.0,
    ) -> Call:
        """Begin a call; nothing is sent yet.

        Args:
            request: the POST.
            timeouts, policy: those in force.
            waited: seconds that the caller has waited already, which count for `Timeouts.total`.

        Raises:
            SessionError: the session is closed, or belongs to another event loop.
        """
        self.transport()
        own_id = request.headers.get("X-Client-Request-Id", self._client_request_id)
        return Call(
            self,
            request,
            timeouts,
            policy,
            own_id or f"{self._ids_begin}{next(self._numbers):08x}",
            self.environment.clock() - waited,
        )

    async def send(self, call: Call, read: Callable[[bytes, dict[str, str | None], ResponseHead], T]) -> T:
        """Make a plain call and read the answer.

        Raises:
            CtxCacheError: any of the family.
        """
        try:
            answer: T = await self._until_closed(call, read)
        except BaseException as error:
            call.end(error)
            raise
        call.usage = getattr(answer, "usage", None)
        call.end()
        return answer

    async def open(self, call: Call) -> "Exchange":
        """Make a streamed call; return the exchange at the head of the stream. The exchange ends the call.

        Raises:
            CtxCacheError: any of the family.
        """
        try:
            exchange: Exchange = await self._until_closed(call, None)
        except BaseException as error:
            call.end(error)
            raise
        exchange.on_close = call.end
        if call.timeouts.total is not None:
            exchange.limit_total(call.started + call.timeouts.total)
        call.forget_body()
        return exchange

    # --- the wait for an answer

    async def _until_closed(self, call: Call, read: Callable[..., Any] | None) -> Any:
        """Run the call, wherever the task is waiting, until the session or the stream is closed."""
        scope = call.scope
        self._pending.add(call)
        try:
            if call.timeouts.total is None:
                return await self._repeated(call, read)
            return await self._within_total(call, read, call.timeouts.total)
        except asyncio.CancelledError:
            if scope is None or not scope.cancelled or scope.cancelled_elsewhere():
                raise
        finally:
            call.scope = None
            self._pending.discard(call)
        raise call.error_of_abort()

    async def _within_total(self, call: Call, read: Callable[..., Any] | None, total: float) -> Any:
        left = total - (self.environment.clock() - call.started)
        try:
            if left > 0:  # else a request might leave before the time limit ends the task's first wait
                async with asyncio.timeout(left):
                    return await self._repeated(call, read)
        except CtxCacheError:
            raise  # of which some are TimeoutErrors, too
        except TimeoutError:
            pass
        raise call.final(APITimeoutError.of("total", total, sent=call.evidence.sent))

    async def _repeated(self, call: Call, read: Callable[..., Any] | None) -> Any:
        """Wait for the context, then make attempts until success, or a failure that must not be repeated.

        Args:
            call: the call.
            read: makes the answer of body, ids and head; None for a stream: the exchange is the answer.
        """
        environment, context_id = self.environment, call.request.context_id
        if context_id is not None:
            serialize = call.request.serialize
            if serialize is True or (serialize is UNSET and self.queues.is_serial(context_id)):
                call.queue = await self.queues.take(context_id)
        began = environment.clock()
        while True:
            try:
                exchange = await self._attempt(call)
                if read is not None:
                    return read(await exchange.read_all(self.limits.body_bytes), exchange.ids, exchange.head)
                # Looked at before the Content-Type is believed: some gateways say JSON of a stream.
                declared = exchange.content_type
                if declared in _NO_STREAM and not wire.looks_like_events(await exchange.look()):
                    await self._refuse(exchange, declared)
                return exchange
            except CtxCacheError as error:
                failure = error
            # Outside the handler, so that the next error has no needless context.
            if isinstance(failure, ContextBusyError) and call.request.context_id is not None:
                self.queues.mark_serial(call.request.context_id)
            if call.on_pause is not None and isinstance(failure, RateLimitError):
                asked = failure.retry_after
                if asked is not None and asked <= call.policy.max_retry_after:
                    call.on_pause(asked)
            delay = None
            if self._may_repeat(call, failure):
                delay = retry.next_delay(
                    call.policy,
                    failure,
                    attempt=call.attempts,
                    elapsed=environment.clock() - began,
                    jitter=environment.random(),
                )
            if delay is None:
                raise call.final(failure)
            self._announce_retry(call, failure, delay)
            call.evidence = Evidence()  # nothing of the next attempt was sent yet
            await environment.sleep(delay)

    def _may_repeat(self, call: Call, failure: CtxCacheError) -> bool:
        if self._root._closed or (outage_awaited.get() and retry.unreachable(failure)):
            return False
        return retry.may_repeat(failure, repeatable=call.request.repeatable)

    async def _refuse(self, exchange: "Exchange", declared: str) -> NoReturn:
        body = await exchange.read_all(self.limits.body_bytes)
        raise service_errors.error_instead_of_stream(body, declared)

    async def _attempt(self, call: Call) -> "Exchange":
        """Make an attempt; return only if the service accepted the request."""
        call.attempts += 1
        call.head = NO_HEAD
        call.ids = {"client_request_id": call.client_request_id}
        exchange = await self.transport().open(
            call.request if call.attempts == 1 and call.queue is None else call.chosen(),
            call.client_request_id,
            call.timeouts,
            call.evidence,
            urgent=call.urgent,
            choose=call.choose and call.chosen,
        )
        call.head_at = self.environment.clock()
        call.head = exchange.head
        call.ids = exchange.ids
        if 200 <= exchange.status < 300:
            return exchange
        try:
            body = await exchange.read_all(self.limits.body_bytes)
        except CtxCacheError:
            body = b""  # the status says enough
        retry_after = retry.parse_retry_after(exchange.headers, self.environment.now())
        raise service_errors.error_from_answer(exchange.status, body, retry_after=retry_after)

    # --- log and hooks

    def _announce_retry(self, call: Call, failure: CtxCacheError, delay: float) -> None:
        log.warning(
            "POST %s: %s, attempt %d of %d, again in %.2f s (client request id %s)",
            call.request.path,
            type(failure).__name__,
            call.attempts,
            call.policy.attempts,
            delay,
            call.client_request_id,
        )
        self.notifier.notify(
            "on_retry",
            lambda: RetryEvent(
                path=call.request.path,
                context_id=call.request.context_id,
                client_request_id=call.client_request_id,
                attempt=call.attempts,
                delay=delay,
                error=call.annotate(failure),
            ),
        )

    def report(self, call: Call, error: BaseException | None) -> None:
        """Add up the usage of a call that has ended, tell the hook, write the log line."""
        if call.usage is not None:
            self._root._usage += call.usage
        if self.notifier.hooks.on_call is not None:
            self.notifier.notify(
                "on_call",
                lambda: CallEvent(
                    path=call.request.path,
                    context_id=call.request.context_id,
                    stream=call.request.stream,
                    attempts=call.attempts,
                    seconds=self.environment.clock() - call.started,
                    status=call.head.status,
                    usage=call.usage,
                    error=error,
                    headers=call.head,
                    **call.ids,
                ),
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", call.log_line(error, self.environment.clock()))

    # --- the connections

    @property
    def connected(self) -> bool:
        """Whether there is a transport to close."""
        return self._root._transport is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the first use; None before."""
        transport = self._root._transport
        return None if transport is None else transport.loop

    def transport(self) -> "Transport":
        """The session's connections, made at the first use in the event loop of that use."""
        root = self._root
        if root._closed:
            raise SessionError("the session is closed")
        if root._transport is None:
            root._transport = root._connect()
        elif root._transport.loop is not asyncio.get_running_loop():
            raise SessionError("the session belongs to another event loop: make one session in each")
        return root._transport

    def holdings(self) -> dict[str, float]:
        """Count what the calls under way hold, by kind: {} when there are none."""
        counts: dict[str, float] = {"queues": len(self.queues), "pending": len(self._pending)}
        if self._root._transport is not None:
            counts |= self._root._transport.holdings()
        return {kind: number for kind, number in counts.items() if number}

    async def aclose(self) -> None:
        """Close the transport; calls that wait get a `SessionError`."""
        if self._transport is not None and self._transport.loop is not asyncio.get_running_loop():
            raise SessionError("the session belongs to another event loop: close it in that one")
        self._closed = True
        for call in list(self._pending):
            call.abort("the session was closed")
        if self._transport is not None:
            await self._transport.aclose()
        await self.notifier.aclose()
