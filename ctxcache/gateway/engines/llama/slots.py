"""The slots of one llama.cpp server: which call gets which.

A slot computes one call at a time and keeps the tokens of the last call. A call whose context is still in a slot
computes new tokens only, so a call gets, among the idle slots:

1. a slot that holds the context,
2. else the slot whose loss costs least: one whose tokens are in a file (or that holds none) before one whose tokens
   would have to be saved first, and of these the one used longest ago.

Calls beyond the number of slots wait, first come, first served.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import attrs

__all__ = ["Slot", "Slots"]


@attrs.define(eq=False)
class Slot:
    """One slot.

    Attributes:
        index: the number of the slot at the server.
        context_id: the context whose tokens the slot holds; None for an empty slot, and for tokens of no further use.
        unsaved: whether the slot holds tokens of the context that its file does not.
        used: the ordinal number of the last call; 0 before the first.
    """

    index: int
    context_id: str | None = None
    unsaved: bool = False
    used: int = 0

    def hold(self, context_id: str | None) -> None:
        """Note that the slot now holds the tokens of another context, or none of use."""
        self.context_id = context_id
        self.unsaved = False


class Slots:
    """All slots of one server.

    Args:
        number: how many there are.
    """

    def __init__(self, number: int) -> None:
        self._idle: Final = [Slot(index) for index in range(number)]
        self._calls: Final = asyncio.Semaphore(number)
        self._uses: Final = count(1)

    @asynccontextmanager
    async def take(self, context_id: str) -> AsyncIterator[Slot]:
        """Lend the best slot for a call on a context; wait while all are lent."""
        async with self._calls:
            slot = min(self._idle, key=lambda slot: (slot.context_id != context_id, slot.unsaved, slot.used))
            self._idle.remove(slot)
            slot.used = next(self._uses)
            try:
                yield slot
            finally:
                self._idle.append(slot)

    def forget(self, context_id: str) -> None:
        """Note that a context has ended: an idle slot that holds the context is as good as empty."""
        for slot in self._idle:
            if slot.context_id == context_id:
                slot.hold(None)
