"""Stores that fail."""

import asyncio
from collections import Counter

from ctxcache.managed import MemoryStore

METHODS = "get put touch forget lease release".split()


class Broken(MemoryStore):
    """A store of which some methods fail, one way or another."""

    def __init__(self, clock, how, *methods):
        super().__init__(clock=clock)
        self.tried = Counter()
        for method in methods:
            setattr(self, method, self._make(method, how))

    def _make(self, method, how):
        async def fail(*_):
            self.tried[method] += 1
            if how == "hangs":
                await asyncio.Event().wait()
            if how == "nonsense":
                return "nonsense"
            raise {"raises": OSError("redis://:a-password@host is down"), "cancels": asyncio.CancelledError()}[how]

        return fail
