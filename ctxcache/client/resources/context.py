"""`POST /context/create`."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from ... import checks, wire
from ...config import UNSET, Retry, Timeouts, Unset, hide, read_retry, read_timeouts
from ...keywords import suggest_keywords
from ...models import Context, ContextRequest, MessageLike, TruncationStrategy, TruncationStrategyDict, read_messages
from ..call import Call
from ..calls import Calls

__all__ = ["ContextEndpoint"]


class ContextEndpoint:
    """`session.context`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @suggest_keywords
    async def create(
        self,
        *,
        model: str,
        messages: Iterable[MessageLike],
        mode: Literal["session", "common_prefix"] | Unset | None = "session",
        ttl: int | timedelta | Unset | None = None,
        truncation_strategy: TruncationStrategy | TruncationStrategyDict | Mapping[str, Any] | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> Context:
        """Make a context: a conversation or a prefix that the service keeps.

        No endpoint gets, lists, renews or deletes a context: a context ends when not used for `ttl`, and the storage is
        billed until then. A create is repeated where no answer came, since a second context costs storage and does no
        other harm.

        Args:
            model: the model's id.
            messages: the first messages of the context: `Message` objects or mappings with `role` and `content`. The
                last message may not be the assistant's.
            mode: `session` (the service keeps the conversation, one call at a time) or `common_prefix` (immutable, any
                number of calls at once).
            ttl: idle time after which the context is removed: seconds in [3600, 604800] or a timedelta; the service's
                default is 86400. Every use starts the time anew.
            truncation_strategy: for `session`: what to do when the history outgrows the model's window: see
                `TruncationStrategyDict`.
            extra_headers: further headers of this call.
            extra_body: further body fields, sent unchanged.
            timeouts: seconds for the whole call, or a `Timeouts`, whose named limits replace the session's.
            retry: the number of retries after the first attempt, or a `Retry`. Default: the session's.

        Raises:
            InvalidInputError: for an argument out of range; nothing was sent.
            CtxCacheError: any other of the family.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        request = ContextRequest(
            model=model,
            messages=read_messages(messages),
            mode=UNSET if mode is None else mode,
            ttl=ttl,
            truncation_strategy=truncation_strategy,
            extra={} if extra_body is None or extra_body is UNSET else checks.json_mapping("extra_body", extra_body),
        )
        call = self._calls.begin(
            wire.create_request(request, self._calls.with_headers(extra_headers)),
            read_timeouts(timeouts, self._calls.timeouts),
            read_retry(retry, self._calls.policy),
        )
        return await self._send(call, request)

    async def send(self, request: ContextRequest, *, watch: Callable[[Call], object]) -> Context:
        """Make a context from a request that was checked before.

        Args:
            request: the request.
            watch: called with the new call, whose `evidence` tells whether the request was sent.

        Raises:
            CtxCacheError: as `create`.
        """
        call = self._calls.begin(
            wire.create_request(request, self._calls.with_headers(None)), self._calls.timeouts, self._calls.policy
        )
        call.urgent = True  # others wait for the context
        watch(call)
        return await self._send(call, request)

    async def _send(self, call: Call, request: ContextRequest) -> Context:
        context = await self._calls.send(call, lambda body, ids, head: wire.read_context(body, ids, request, head))
        if context.mode == "session":
            self._calls.queues.mark_serial(context.id)
        return context
