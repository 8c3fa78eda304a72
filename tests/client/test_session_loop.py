"""The event loop that a session belongs to."""

import asyncio

from ctxcache import AsyncSession


async def test_the_loop_of_the_first_use() -> None:
    """A session belongs to no loop before the first use, then to that of the first use."""
    session = AsyncSession("sk-x", "http://127.0.0.1:1/v1")
    assert session.loop is None
    async with session:
        assert session.loop is asyncio.get_running_loop()
