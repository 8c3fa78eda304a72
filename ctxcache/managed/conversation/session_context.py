"""`SessionContext`: the context of one conversation, created on first use and rebuilt from the transcript.

One call uses it at a time: `Dialogue` keeps the turns in order. A caller that is cancelled cancels a create, but not a
create that was sent, which is billed: that serves the next caller who needs the same messages.
"""

from typing import Final, Literal

from ...models import Context, Message, Usage
from ..keeper import ContextKeeper, Loss, Replaced
from ..live import LiveContext
from ..single_flight import SingleFlight
from .saved import SavedContext
from .transcript import Transcript, answered_part

__all__ = ["SessionContext"]

_ACCOUNT: Final = b"conversation"


class SessionContext:
    """The context in use.

    Args:
        keeper: creates the contexts.

    Attributes:
        live: the context; None before the first.
        carried: the assistant's messages at the end of the transcript, which a create cannot hold: they are sent in
            front of the next question.
        lost: why the context must not be used any more, apart from its expiry; None if it may be used.
    """

    def __init__(self, keeper: ContextKeeper) -> None:
        self._keeper = keeper
        self.live: LiveContext | None = None
        self.carried: tuple[Message, ...] = ()
        self.lost: Literal["gone", "resync"] | None = None
        self._flight: tuple[tuple[Message, ...], SingleFlight[LiveContext]] | None = None  # the messages, the create
        self._unused: tuple[tuple[Message, ...], LiveContext] | None = None  # the messages, the context created

    def save(self) -> SavedContext | None:
        """Return what another process needs to use the context."""
        live = self.live
        if live is None:
            return None
        return SavedContext(
            id=live.context.id,
            ttl=live.ttl,
            expires_at=live.expires_at,
            account=self._keeper.session.fingerprint(_ACCOUNT),
            behind=bool(self.carried),
            lost=self.lost,
        )

    def load(self, saved: SavedContext, transcript: Transcript) -> None:
        """Use a saved context, if it was created with this session's base URL and key."""
        if saved.account != self._keeper.session.fingerprint(_ACCOUNT):
            return
        context = Context(id=saved.id, ttl=round(saved.ttl), model=self._keeper.template.model)
        self.live = self._keeper.watch(context, saved.ttl, saved.expires_at - saved.ttl)
        self.carried = transcript.split()[1] if saved.behind else ()
        self.lost = saved.lost

    def in_front_of(self, question: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return the messages to send in front of a question: without the tool calls that the question ignores."""
        carried = self.carried
        return (*carried[:-1], *answered_part(carried[-1], question)) if carried else ()

    @property
    def usable(self) -> LiveContext | None:
        """The context, unless it is lost or has expired."""
        live = self.live
        return None if live is None or self.lost is not None or live.expired(self._keeper.clock()) else live

    async def ready(self, transcript: Transcript) -> LiveContext:
        """Return a context that may be used: the present one, or a new one if that is lost or expired."""
        return self.usable or await self.create(transcript, self.lost or "expired")

    async def create(self, transcript: Transcript, reason: Loss) -> LiveContext:
        """Create a context from the transcript and use it from now on; on failure nothing changes.

        Args:
            transcript: what the context holds.
            reason: why it replaces another, if it does.

        Raises:
            CtxCacheError: any of the family.
        """
        messages, carried = transcript.split()
        live = await self._created(messages)
        replaced = None if self.live is None else Replaced(self.live.context.id, reason)
        self.live, self.carried, self.lost = live, carried, None
        self._keeper.announce(live, replaced)
        return live

    async def _created(self, messages: tuple[Message, ...]) -> LiveContext:
        """Return a new context of these messages: that of a create whose caller was cancelled, or of one made now."""
        unused, self._unused = self._unused, None
        if unused is not None and unused[0] == messages and not unused[1].expired(self._keeper.clock()):
            return unused[1]
        flight = self._flight
        if flight is None or flight[1].over or flight[0] != messages:
            work = SingleFlight(self._create(messages), keep=lambda: self._keeper.create_sent)
            flight = self._flight = messages, work
        live = await flight[1].join()
        self._flight = self._unused = None
        return live

    async def _create(self, messages: tuple[Message, ...]) -> LiveContext:
        live = await self._keeper.create(messages)
        self._unused = messages, live
        return live

    def used(self, usage: Usage | None, sent_at: float) -> None:
        """Note a turn on the context; see `LiveContext.used`."""
        if self.live is not None:
            self.live.used(usage, sent_at)
            self.carried = ()
