"""`ContextKeeper`: creates the contexts of one `Prefix` or `Conversation`, keeps their books and reports on them.

Which context is used, and when another takes its place, is decided in `prefix/renewal` and
`conversation/session_context`.
"""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import attrs

from ..client.call import Call
from ..client.hooks import CreateEvent, RecreateEvent, WarningEvent
from ..client.session import AsyncSession
from ..errors import ContextGoneError, CtxCacheError, InvalidInputError
from ..log import log, one_line
from ..models import Context, ContextRequest, Message
from .costs import Ledger
from .live import LiveContext, check_margin, idle_seconds

__all__ = ["ContextKeeper", "Loss", "Replaced"]

_UNCACHED: Final = (
    "a repeat use shows no cached tokens; likely reasons: caching is not enabled for this account or model, the "
    "gateway sent the calls to another model or upstream key, or the window was recomputed (rolling_tokens)"
)

Loss: TypeAlias = Literal["expired", "gone", "resync"]


@attrs.frozen
class Replaced:
    """A context that was replaced, and why.

    Attributes:
        id: the context's id.
        reason: why the context is no longer used.
    """

    id: str
    reason: Loss


class ContextKeeper:
    """The contexts of one `Prefix` or `Conversation`, one after the other.

    Args:
        session: makes the calls; its hooks are told.
        template: the create request of every context, checked. The messages may be replaced for each.
        margin: seconds before the end of a context from which it is no longer used; at most a tenth of the ttl.
        is_gone: which errors say that a context is gone; None: `ContextGoneError`.
        clock: Unix seconds.

    Attributes:
        session, template, margin, clock: as above.
        ledger: the books, over all contexts.

    Raises:
        InvalidInputError: an argument has the wrong type, or is out of range.
    """

    def __init__(
        self,
        session: AsyncSession,
        template: ContextRequest,
        *,
        margin: float,
        is_gone: Callable[[CtxCacheError], bool] | None,
        clock: Callable[[], float],
    ) -> None:
        if not isinstance(session, AsyncSession):
            raise InvalidInputError.of("session", type(session), "an AsyncSession")  # not shown: it may be the key
        is_gone = _is_gone if is_gone is None else is_gone
        for name, function in (("is_gone", is_gone), ("clock", clock)):
            if not callable(function):
                raise InvalidInputError.of(name, function, "a function")
        self.session = session
        self.template = template
        self.margin = check_margin(margin)
        self.clock = clock
        self.ledger = Ledger(grows=template.mode == "session")
        self._is_gone = is_gone
        self._create: Call | None = None

    async def create(self, messages: tuple[Message, ...] | None = None) -> LiveContext:
        """Create a context and enter the create in the books; call `announce` once the context is in use.

        Args:
            messages: instead of the template's messages.

        Raises:
            CtxCacheError: any of the family.
        """
        template = self.template if messages is None else attrs.evolve(self.template, messages=messages)
        sent_at = self.clock()
        try:
            context = await self.session.context.send(template, watch=self._watch_create)
        finally:
            self._create = None
        requested = template.ttl if isinstance(template.ttl, int) else None
        live = self.watch(context, idle_seconds(context, requested), sent_at)
        self.ledger.created(context.id, context.usage, sent_at, live.ttl)
        return live

    def _watch_create(self, call: Call) -> None:
        self._create = call

    @property
    def create_sent(self) -> bool:
        """Whether a create is under way that was sent, or will be in a moment."""
        return self._create is not None and self._create.evidence.begun

    def watch(
        self, context: Context, ttl: float, since: float, *, remaining: float | None = None, adopted: bool = False
    ) -> LiveContext:
        """Start the idle timer of a context; see `LiveContext` for the arguments."""
        return LiveContext(
            context,
            self.ledger,
            ttl,
            since,
            margin=self.margin,
            remaining=remaining,
            adopted=adopted,
            on_uncached=self._warn_uncached,
        )

    def announce(self, live: LiveContext, replaced: Replaced | None) -> None:
        """Log a new context and tell the hooks.

        Args:
            live: the new context.
            replaced: the one it replaces, if any.
        """
        notify, context, ttl = self.session.notify, live.context, live.ttl
        if replaced is None:
            log.info("context %s: created, ttl %.0f s", context.id, ttl)
            notify("on_create", lambda: CreateEvent(context=context))
            return
        old_id, reason = replaced.id, replaced.reason
        log.info("context %s: created in place of %s (%s), ttl %.0f s", context.id, old_id, reason, ttl)
        notify("on_recreate", lambda: RecreateEvent(context=context, old_id=old_id, reason=reason))

    def _warn_uncached(self, live: LiveContext) -> None:
        context_id = live.context.id
        message = f"context {one_line(context_id)}: {_UNCACHED}"
        log.warning("%s", message)
        self.session.notify("on_warning", lambda: WarningEvent(kind="uncached", message=message, context_id=context_id))

    def warn_unsaved(self, message: str, error: Exception | None) -> None:
        """Report that a conversation could not be saved."""
        log.warning("%s", one_line(message))
        self.session.notify("on_warning", lambda: WarningEvent(kind="autosave", message=message, error=error))

    def is_gone(self, error: CtxCacheError) -> bool:
        """Whether an error says that its context is gone; no, if the caller's predicate raises."""
        try:
            return bool(self._is_gone(error))
        except Exception as broken:
            log.error("is_gone raised; assuming the context still exists", exc_info=broken)
            return False


def _is_gone(error: CtxCacheError) -> bool:
    return isinstance(error, ContextGoneError)
