"""The context of one conversation: created on first use, and anew from the transcript when it is gone.

One call works on it at a time; whose turn it is, is decided by `dialogue`.
"""

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import attrs

from ..config import Unset
from ..hooks import CreateEvent, RecreateEvent, WarningEvent
from ..models import Context, Message, TruncationStrategy, Usage
from ..session import AsyncSession
from .costs import Ledger
from .expiry import Expiry, idle_seconds
from .saved import SavedContext
from .transcript import Transcript

__all__ = ["ContextSettings", "Loss", "SessionContext"]

log: Final = logging.getLogger("ctxcache")

_ACCOUNT: Final = b"conversation"

Loss: TypeAlias = Literal["expired", "gone", "resync"]


@attrs.frozen(kw_only=True)
class ContextSettings:
    """What every context of a conversation is created with, and the margin of its expiry in seconds."""

    model: str
    ttl: int | Unset
    truncation_strategy: TruncationStrategy | Unset
    margin: float


class SessionContext:
    """The context in use, its idle timer and its books.

    Attributes:
        settings: what it is created with.
        context: the context in use; None before the first.
        carried: messages that it lacks, to be sent in front of the next question: those of the assistant's that the
            transcript ended with when it was created.
        lost: why it must not be used any more (`expired` is found out when it is to be used); None if it may be.
        ledger: the books, over all re-creations.
    """

    def __init__(self, session: AsyncSession, settings: ContextSettings, clock: Callable[[], float]) -> None:
        self._session = session
        self._clock = clock
        self._expiry: Expiry | None = None
        self.settings = settings
        self.context: Context | None = None
        self.carried: tuple[Message, ...] = ()
        self.lost: Loss | None = None
        self.ledger = Ledger(grows=True)

    @property
    def expires_at(self) -> float | None:
        """When the context in use will be gone, Unix seconds."""
        return None if self._expiry is None else self._expiry.expires_at

    def save(self) -> SavedContext | None:
        """Return what is needed to go on with the context in use in another process."""
        if self.context is None or self._expiry is None:
            return None
        return SavedContext(
            id=self.context.id,
            ttl=self._expiry.ttl,
            expires_at=self._expiry.expires_at,
            account=self._session.fingerprint(_ACCOUNT),
            behind=bool(self.carried),
            lost=None if self.lost == "expired" else self.lost,
        )

    def load(self, saved: SavedContext, transcript: Transcript) -> None:
        """Take a saved context into use, if it was made with this session's base URL and key."""
        if saved.account != self._session.fingerprint(_ACCOUNT):
            return
        self.context = Context(id=saved.id, ttl=round(saved.ttl), model=self.settings.model)
        self.carried = transcript.split()[1] if saved.behind else ()
        self.lost = saved.lost
        self._expiry = Expiry(saved.ttl, saved.expires_at - saved.ttl, margin=self.settings.margin)

    async def ready(self, transcript: Transcript) -> Context:
        """Return a context that may be used; it is created if there is none, or the one there was is lost."""
        if self.lost is None and self._expiry is not None and self._expiry.expired(self._clock()):
            self.lost = "expired"
        if self.context is not None and self.lost is None:
            return self.context
        return await self.create(transcript, self.lost or "gone")

    async def create(self, transcript: Transcript, reason: Loss) -> Context:
        """Create a context from the transcript, and use it from now on. If that fails, nothing has changed.

        Args:
            transcript: what it is to hold.
            reason: why, if it takes the place of another.

        Raises:
            CtxCacheError: any of the family.
        """
        settings, old = self.settings, self.context
        messages, carried = transcript.split()
        at = self._clock()
        context = await self._session.context.create(
            model=settings.model,
            messages=messages,
            mode="session",
            ttl=settings.ttl,
            truncation_strategy=settings.truncation_strategy,
        )
        ttl = idle_seconds(context)
        self._expiry = Expiry(ttl, at, margin=settings.margin)
        self.context, self.carried, self.lost = context, carried, None
        self.ledger.created(context.id, context.usage, at, ttl)
        hooks = self._session.hooks
        if old is None:
            log.info("a conversation created the context %s", context.id)
            hooks.fire("on_create", lambda: CreateEvent(context=context))
        else:
            log.info("a conversation created the context %s in place of %s (%s)", context.id, old.id, reason)
            hooks.fire("on_recreate", lambda: RecreateEvent(context=context, old_id=old.id, reason=reason))
        return context

    def used(self, usage: Usage | None, sent: float) -> None:
        """Note that a turn was made on the context in use, and what it was counted at.

        Args:
            usage: as the service gave it, None if it gave none.
            sent: when it was sent, Unix seconds.
        """
        if self._expiry is None or self.context is None:
            return
        self._expiry.used(sent)
        self.carried = ()
        if self.ledger.used(self.context.id, usage, sent):
            self._say_uncached(self.context.id)

    def _say_uncached(self, context_id: str) -> None:
        message = (
            f"the context {context_id} shows no cached tokens on a repeat use; likely reasons: the window was "
            "recomputed (rolling_tokens), caching is not enabled for this account or model, or the gateway sent the "
            "calls to another model or upstream key"
        )
        log.warning("%s", message)
        self._session.hooks.fire(
            "on_warning", lambda: WarningEvent(kind="uncached", message=message, context_id=context_id)
        )
