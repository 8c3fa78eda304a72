"""Hooks: the caller's functions that are called on events. Hooks observe; a hook cannot fail or delay a call."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from ..errors import CtxCacheError, InvalidInputError
from ..keywords import suggest_fields
from ..log import log
from ..models import Context, Usage
from ..response_head import NO_HEAD

__all__ = ["CallEvent", "CreateEvent", "Hooks", "Notifier", "RecreateEvent", "RetryEvent", "WarningEvent"]

Event = TypeVar("Event")
Hook: TypeAlias = Callable[[Event], Awaitable[None] | None]


@attrs.frozen(kw_only=True)
class CallEvent:
    """A call, create or chat, has ended.

    Attributes:
        path: the endpoint's path, below the base URL.
        context_id: the context of a chat; None for a create.
        stream: whether the answer was streamed.
        attempts: POSTs sent or tried.
        seconds: from begin to end, waiting and pauses included.
        status: the status of the last answer, or None where no answer came.
        usage: the tokens; None where the service did not say.
        error: the error raised; None after success, and for a stream closed by the reader.
        request_id, log_id, client_request_id: ids of the last answer.
        headers: the headers of the last answer, names in any case; none where no answer came. Not compared.
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
    headers: Mapping[str, str] = attrs.field(default=NO_HEAD, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class RetryEvent:
    """A call will be repeated.

    Attributes:
        path, context_id, client_request_id: as in `CallEvent`.
        attempt: the attempts made so far.
        delay: seconds until the next attempt.
        error: the failure of the last attempt.
    """

    path: str
    context_id: str | None
    client_request_id: str
    attempt: int
    delay: float
    error: CtxCacheError


@attrs.frozen(kw_only=True)
class CreateEvent:
    """A `Prefix` or a `Conversation` created a first context."""

    context: Context


@attrs.frozen(kw_only=True)
class RecreateEvent:
    """A `Prefix` or a `Conversation` replaced a context.

    Attributes:
        context: the new context.
        old_id: the id of the context before.
        reason: `expired` (known beforehand), `gone` (the service said so) or `resync` (the state was unknown).
    """

    context: Context
    old_id: str
    reason: Literal["expired", "gone", "resync"]


@attrs.frozen(kw_only=True)
class WarningEvent:
    """A condition that deserves a look; reported once for each cause.

    Attributes:
        kind: `store` (a store failed; calls continue without), `uncached` (a repeat use shows no cached tokens) or
            `autosave` (a conversation could not be saved; the next turn tries again).
        message: the text, as in the log.
        context_id: the context concerned, or None.
        error: the exception, or None.
    """

    kind: Literal["store", "uncached", "autosave"]
    message: str
    context_id: str | None = None
    error: BaseException | None = None


@suggest_fields
@attrs.frozen(kw_only=True)
class Hooks:
    """Functions that are called on events, sync or async; each takes the event.

    A sync hook is called on the spot: keep it short. An async hook runs as a task of its own; `AsyncSession.aclose`
    gives hooks under way 5 seconds to finish. An exception of a hook is logged once and goes no further.

    Attributes:
        on_create: a `Prefix` or a `Conversation` created a first context; gets a `CreateEvent`.
        on_recreate: a `Prefix` or a `Conversation` replaced a context; gets a `RecreateEvent`.
        on_retry: a call will be repeated; gets a `RetryEvent`.
        on_call: a call of the session has ended, well or not; gets a `CallEvent`.
        on_warning: something deserves a look; gets a `WarningEvent`.
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
    """Calls the hooks of a session, and keeps failures of hooks away from calls.

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
        """Call the hook of that name, if any, with the event that `make` builds."""
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
