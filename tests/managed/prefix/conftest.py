"""A store in memory by the test's clock, and prefixes that share it."""

import pytest

from ctxcache.managed import MemoryStore


class Shop(MemoryStore):
    """A store that notes the key it is asked for, and may begin with the lease of somebody who died."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.key = ""
        self.touches = 0
        self.releases = 0
        self.dead_holder_s_lease = 0.0

    async def lease(self, key, holder, seconds):
        """Take the lease."""
        self.key = key
        if self.dead_holder_s_lease:
            await super().lease(key, "somebody who died", self.dead_holder_s_lease)
            self.dead_holder_s_lease = 0.0
        return await super().lease(key, holder, seconds)

    async def release(self, key, holder):
        """Count it."""
        await super().release(key, holder)
        self.releases += 1

    async def touch(self, key, context_id, remaining):
        """Count it."""
        self.touches += 1
        await super().touch(key, context_id, remaining)


@pytest.fixture
def shop(clock):
    """A store in memory, by the test's clock."""
    return Shop(clock=clock)


@pytest.fixture
def shared(prefix_for, shop):
    """Make Prefix objects over one store."""
    return lambda **settings: prefix_for(store=shop, **settings)
