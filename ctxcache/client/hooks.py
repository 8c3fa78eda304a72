"""Hooks: the caller's functions that hear of events. Hooks observe; they cannot fail or delay a call."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from ..errors import CtxCacheError, InvalidInputError
from ..log import log
from ..models import Context, Usage

__all__ = ["CallEvent", "CreateEvent", "Hooks", "Notifier", "RecreateEvent", "RetryEvent", "WarningEvent"]

Event = TypeVar("Event")
Hook: TypeAlias = Callable[[Event], Awaitable[None] | None]


@attrs.frozen(kw_only=True)
class CallEvent:
    """A call, create or chat, has ended.

    Attributes:
        path: of the endpoint, below the base URL.
        context_id: the context it ran on; None for a create.
        stream: whether the answer was streamed.
        attempts: POSTs sent or tried.
        seconds: from the call's begin to its end, waiting and pauses included.
        status: of the last answer's head, or None where none came.
        usage: what it was counted at; None where the service did not say.
        error: what it failed with; None if it did not. A stream closed by its reader has none either.
        request_id, log_id, client_request_id: ids of the last answer.
    """

    path: str
    context_id: str | None
    stream: bool
    attempts: int
    seconds: float
    status: int | None
    usage: Usage | None
    error: BaseException | None
    request_id: str | None = None
    log_id: str | None = None
    client_request_id: str | None = None


@attrs.frozen(kw_only=True)
class RetryEvent:
    """A call is tried again.

    Attributes:
        path, context_id, client_request_id: as in `CallEvent`.
        attempt: how many were made so far.
        delay: seconds until the next.
        error: why.
    """

    path: str
    context_id: str | None
    client_request_id: str
    attempt: int
    delay: float
    error: CtxCacheError


@attrs.frozen(kw_only=True)
class CreateEvent:
    """A `Prefix` or a `Conversation` created its context."""

    context: Context


@attrs.frozen(kw_only=True)
class RecreateEvent:
    """A `Prefix` or a `Conversation` created its context again.

    Attributes:
        context: the new one.
        old_id: the id of the one before.
        reason: `expired` (known beforehand), `gone` (the service said so) or `resync` (its state was unknown).
    """

    context: Context
    old_id: str
    reason: Literal["expired", "gone", "resync"]


@attrs.frozen(kw_only=True)
class WarningEvent:
    """Something that deserves a look; said once for each cause.

    Attributes:
        kind: `store` (a store failed; calls go on without it) or `uncached` (a repeat use shows no cached tokens).
        message: the same as in the log.
        context_id: the context it is about, if it is about one.
        error: what failed, if something did.
    """

    kind: Literal["store", "uncached"]
    message: str
    context_id: str | None = None
    error: BaseException | None = None


@attrs.frozen(kw_only=True)
class Hooks:
    """Functions to be told of what happens, sync or async; each takes one event.

    A sync one is called on the spot: keep it short. An async one runs as a task of its own; `AsyncSession.aclose` gives
    those under way 5 seconds to finish. What a hook raises is logged once for each hook and goes no further.

    Attributes:
        on_create: gets a `CreateEvent`.
        on_recreate: gets a `RecreateEvent`.
        on_retry: gets a `RetryEvent`.
        on_call: gets a `CallEvent`, at the end of every call of the session.
        on_warning: gets a `WarningEvent`.
    """

    on_create: Hook[CreateEvent] | None = None
    on_recreate: Hook[RecreateEvent] | None = None
    on_retry: Hook[RetryEvent] | None = None
    on_call: Hook[CallEvent] | None = None
    on_warning: Hook[WarningEvent] | None = None

    def __attrs_post_init__(self) -> None:
        for name in attrs.fields_dict(Hooks):
            if (hook := getattr(self, name)) is not None and not callable(hook):
                raise InvalidInputError.of(f"Hooks.{name}", hook, "a function of one argument, or None")


class Notifier:
    """Calls the hooks of one session, and keeps their failures away from its calls.

    Args:
        hooks: the functions.
        grace: seconds that hooks under way get when the session is closed.
    """

    def __init__(self, hooks: Hooks, grace: float) -> None:
        self.hooks = hooks
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: set[str] = set()

    def notify(self, name: str, make: Callable[[], Any]) -> None:
        """Call the hook of that name, if there is one, with the event that `make` builds."""
        hook = getattr(self.hooks, name)
        if hook is None:
            return
        try:
            result = hook(make())
        except (Exception, asyncio.CancelledError) as error:
            self._log_failure(name, error)
            return
        if inspect.isawaitable(result):
            task = asyncio.get_running_loop().create_task(self._finish(name, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish(self, name: str, result: Awaitable[None]) -> None:
        try:
            await result
        except Exception as error:
            self._log_failure(name, error)

    def _log_failure(self, name: str, error: BaseException) -> None:
        if name not in self._failed:
            self._failed.add(name)
            log.error("the hook %s raised (logged once)", name, exc_info=error)

    async def aclose(self) -> None:
        """Give the hooks under way a moment to finish, then cancel the rest."""
        others = self._tasks - {asyncio.current_task()}  # a hook may close the session
        if others:
            _, late = await asyncio.wait(others, timeout=self._grace)
            for task in late:
                task.cancel()
