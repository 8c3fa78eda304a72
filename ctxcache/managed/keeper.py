"""What `Prefix` and `Conversation` do alike with the contexts they use, one after the other.

Here a context is created, its uses are entered in the books, and the log and the hooks are told. Which context is used,
and when another one takes its place, is decided in `prefix/renewal` and `conversation/context`.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import attrs

from ..client.hooks import CreateEvent, RecreateEvent, WarningEvent
from ..client.session import AsyncSession
from ..errors import ContextGoneError, CtxCacheError, InvalidInputError
from ..models import Context, ContextRequest, Message, Usage
from .costs import Ledger
from .expiry import Expiry, check_margin, idle_seconds

__all__ = ["ContextKeeper", "Loss", "Replaced"]

log: Final = logging.getLogger("ctxcache")

_UNCACHED: Final = (
    "a repeat use shows no cached tokens; likely reasons: caching is not enabled for this account or model, the "
    "gateway sent the calls to another model or upstream key, or the window was recomputed (rolling_tokens)"
)

Loss: TypeAlias = Literal["expired", "gone", "resync"]


@attrs.frozen
class Replaced:
    """A context that another one takes the place of.

    Attributes:
        id: its id.
        reason: why it is not used any more.
    """

    id: str
    reason: Loss


class ContextKeeper:
    """The contexts of one `Prefix` or `Conversation`.

    Args:
        session: makes the calls; its hooks are told.
        asked: what every context is created with; checked by then. Its messages may be replaced for each.
        margin: seconds before its end from which a context is no longer used; never more than a tenth of its ttl.
        is_gone: which errors say that a context is gone; None: `ContextGoneError`.
        clock: Unix seconds.

    Attributes:
        session, asked, margin, clock: as above.
        ledger: the books, over all contexts.

    Raises:
        InvalidInputError: for an argument that is none of these.
    """

    def __init__(
        self,
        session: AsyncSession,
        asked: ContextRequest,
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
        self.asked = asked
        self.margin = check_margin(margin)
        self.clock = clock
        self.ledger = Ledger(grows=asked.mode == "session")
        self._is_gone = is_gone

    async def create(self, messages: tuple[Message, ...] | None = None) -> tuple[Context, Expiry]:
        """Create a context and enter it in the books; `tell_created` is for when it is in use.

        Args:
            messages: what it begins with, instead of the messages of `asked`.

        Raises:
            CtxCacheError: any of the family.
        """
        asked: Any = self.asked  # its fields are in their one form by now
        sent = self.clock()
        context = await self.session.context.create(
            model=asked.model,
            messages=asked.messages if messages is None else messages,
            mode=asked.mode,
            ttl=asked.ttl,
            truncation_strategy=asked.truncation_strategy,
        )
        expiry = Expiry(idle_seconds(context, asked.ttl or None), sent, margin=self.margin)
        self.ledger.created(context.id, context.usage, sent, expiry.ttl)
        return context, expiry

    def tell_created(self, context: Context, ttl: float, replaced: Replaced | None) -> None:
        """Tell the log and the hooks of a new context.

        Args:
            context: the new one.
            ttl: its idle time, seconds.
            replaced: the one whose place it takes, if there was one.
        """
        hooks = self.session.hooks
        if replaced is None:
            log.info("context %s: created, ttl %.0f s", context.id, ttl)
            hooks.fire("on_create", lambda: CreateEvent(context=context))
            return
        old_id, reason = replaced.id, replaced.reason
        log.info("context %s: created in place of %s (%s), ttl %.0f s", context.id, old_id, reason, ttl)
        hooks.fire("on_recreate", lambda: RecreateEvent(context=context, old_id=old_id, reason=reason))

    def used(self, context_id: str, usage: Usage | None, sent: float) -> None:
        """Enter a use in the books; tell, once for each context, that a repeat use was not cached.

        Args:
            context_id: of the context.
            usage: what the use was counted at; None where the service did not say.
            sent: when the request was sent, Unix seconds.
        """
        if self.ledger.used(context_id, usage, sent):
            message = f"context {context_id}: {_UNCACHED}"
            log.warning("%s", message)
            self.session.hooks.fire(
                "on_warning", lambda: WarningEvent(kind="uncached", message=message, context_id=context_id)
            )

    def is_gone(self, error: CtxCacheError) -> bool:
        """Whether an error says that its context is gone. If the caller's predicate raises, it does not."""
        try:
            return bool(self._is_gone(error))
        except Exception as broken:
            log.error("is_gone raised; the context is taken to be there", exc_info=broken)
            return False


def _is_gone(error: CtxCacheError) -> bool:
    return isinstance(error, ContextGoneError)
