"""Garbage collection: messages that stay are hidden from the collector.

A full collection looks at every object there is, while the event loop stands: half a second for a million messages.
`gc.freeze` takes all present objects out of sight. Reference counting still frees each of them; only a cycle of them
would stay, so young garbage is collected first.
"""

import gc
from typing import Final

__all__ = ["Freezer"]

_FEW: Final = 10_000  # messages looked at in some milliseconds


class Freezer:
    """Hides stored messages from the garbage collector, many at once.

    Args:
        few: how many messages may be in sight.
    """

    def __init__(self, few: int = _FEW) -> None:
        self._few: Final = few
        self._in_sight = 0

    def __call__(self, messages: int) -> None:
        """Take note that so many messages were stored."""
        self._in_sight += messages
        if self._in_sight > self._few:
            self._in_sight = 0
            gc.collect(1)
            gc.freeze()
