"""The context of one conversation: created on first use, and anew from the transcript when it is gone.

One call works on it at a time; whose turn it is, is decided by `dialogue`.
"""

from typing import Final, Literal

from ...models import Context, Message, Usage
from ..expiry import Expiry
from ..keeper import ContextKeeper, Loss, Replaced
from .saved import SavedContext
from .transcript import Transcript

__all__ = ["SessionContext"]

_ACCOUNT: Final = b"conversation"


class SessionContext:
    """The context in use and its idle timer.

    Args:
        contexts: creates them, and keeps the books.

    Attributes:
        context: the context in use; None before the first.
        carried: messages that it lacks, to be sent in front of the next question: those of the assistant's that the
            transcript ended with when it was created.
        lost: why it must not be used any more, beside being expired; None if it may be.
    """

    def __init__(self, contexts: ContextKeeper) -> None:
        self._keeper = contexts
        self._expiry: Expiry | None = None
        self.context: Context | None = None
        self.carried: tuple[Message, ...] = ()
        self.lost: Literal["gone", "resync"] | None = None

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
            account=self._keeper.session.fingerprint(_ACCOUNT),
            behind=bool(self.carried),
            lost=self.lost,
        )

    def load(self, saved: SavedContext, transcript: Transcript) -> None:
        """Take a saved context into use, if it was made with this session's base URL and key."""
        if saved.account != self._keeper.session.fingerprint(_ACCOUNT):
            return
        self.context = Context(id=saved.id, ttl=round(saved.ttl), model=self._keeper.asked.model)
        self.carried = transcript.split()[1] if saved.behind else ()
        self.lost = saved.lost
        self._expiry = Expiry(saved.ttl, saved.expires_at - saved.ttl, margin=self._keeper.margin)

    async def ready(self, transcript: Transcript) -> Context:
        """Return a context that may be used; it is created if there is none, or the one there was is lost."""
        expired = self._expiry is not None and self._expiry.expired(self._keeper.clock())
        if self.context is None or expired or self.lost is not None:
            return await self.create(transcript, self.lost or "expired")
        return self.context

    async def create(self, transcript: Transcript, reason: Loss) -> Context:
        """Create a context from the transcript, and use it from now on. If that fails, nothing has changed.

        Args:
            transcript: what it is to hold.
            reason: why, if it takes the place of another.

        Raises:
            CtxCacheError: any of the family.
        """
        messages, carried = transcript.split()
        context, expiry = await self._keeper.create(messages)
        replaced = None if self.context is None else Replaced(self.context.id, reason)
        self.context, self._expiry, self.carried, self.lost = context, expiry, carried, None
        self._keeper.tell_created(context, expiry.ttl, replaced)
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
        self._keeper.used(self.context.id, usage, sent)
