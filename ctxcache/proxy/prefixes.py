"""The prefixes of a proxy: one `Prefix` for each beginning, within a budget of contexts.

Invariants:

- Concurrent chats of one beginning share one `Prefix`, and so one context.
- A context cannot be deleted and is billed until its ttl ends. So a marked or learned beginning takes a place of the
  budget from the create, which outlives a chat that is cancelled, until the end of the context. A chat for which no
  place is left goes without a context. Registered beginnings take no place.
- A beginning whose context was refused by the service is left alone for a while: its chats go without.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ..errors import CtxCacheError
from ..managed import Prefix
from .recognition import Beginning, Chat

__all__ = ["HeldPrefix", "Prefixes"]

_REFUSED_SECONDS: Final = 60.0


class HeldPrefix:
    """A prefix with its place in the table.

    Args:
        prefix: the prefix.
        length: the number of messages.

    Attributes:
        users: how many chats are under way.
        refused_until: when to ask the service for a context again.
        refusal: the service's last refusal.
    """

    def __init__(self, prefix: Prefix, length: int) -> None:
        self.prefix: Final = prefix
        self.length: Final = length
        self.users = 0
        self.refused_until = 0.0
        self.refusal: CtxCacheError | None = None
        self._told_id = ""

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the place for the time of a chat."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def tell_created(self, context_id: str) -> bool:
        """Whether to tell a chat that its context was created: here, and no chat was told before."""
        context = self.prefix.context
        if context is None or context.id != context_id or context_id == self._told_id:
            return False
        self._told_id = context_id
        return context.client_request_id is not None  # else another process created the context


class Prefixes:
    """The live prefixes.

    Args:
        make: makes a prefix of `model` and `messages`.
        max_contexts: the budget of marked and learned beginnings.
        clock: Unix seconds.
    """

    def __init__(self, make: Callable[..., Prefix], max_contexts: int, clock: Callable[[], float]) -> None:
        self._make: Final = make
        self._max_contexts: Final = max_contexts
        self._clock: Final = clock
        self._registered: Final[dict[bytes, HeldPrefix]] = {}
        self._budgeted: Final[OrderedDict[bytes, HeldPrefix]] = OrderedDict()  # the least recently used first

    def choose(self, chat: Chat) -> HeldPrefix | None:
        """Return the prefix for a chat: the longest with a context, else the longest that may have one; or None.

        Raises:
            InvalidInputError: the messages cannot be those of a context.
        """
        now = self._clock()
        known = [(beginning, self._find(beginning)) for beginning in chat.beginnings]
        for _, held in known:
            if held is not None and held.prefix.context is not None:
                return held
        for beginning, held in known:
            if held is None:
                held = self._add(chat, beginning)
            if held is not None and held.refused_until <= now:
                return held
        return None

    def refuse(self, held: HeldPrefix, refusal: CtxCacheError) -> None:
        """Leave a beginning alone for a while, since the service refused its context."""
        refusal.__context__ = None
        # Without the traceback, whose frames hold the chat and the request.
        held.refusal, held.refused_until = refusal.with_traceback(None), self._clock() + _REFUSED_SECONDS

    def refusal(self, beginnings: Iterable[Beginning]) -> CtxCacheError | None:
        """Return the service's refusal of a context for the first of some beginnings that was refused."""
        for beginning in beginnings:
            held = self._find(beginning)
            if held is not None and held.refused_until > self._clock():
                return held.refusal
        return None

    def _find(self, beginning: Beginning) -> HeldPrefix | None:
        if beginning.registered:
            return self._registered.get(beginning.key)
        held = self._budgeted.get(beginning.key)
        if held is not None:
            self._budgeted.move_to_end(beginning.key)
        return held

    def _add(self, chat: Chat, beginning: Beginning) -> HeldPrefix | None:
        if not (beginning.registered or self._make_room()):
            return None
        prefix = self._make(model=chat.model, messages=chat.messages[: beginning.length])
        held = HeldPrefix(prefix, beginning.length)
        (self._registered if beginning.registered else self._budgeted)[beginning.key] = held
        return held

    def _make_room(self) -> bool:
        """Let a prefix go that no chat uses, without a context now or in a moment, if the budget is spent."""
        if len(self._budgeted) < self._max_contexts:
            return True
        for key, held in self._budgeted.items():
            if not (held.users or held.prefix.context or held.prefix.renewing):
                del self._budgeted[key]
                return True
        return False
