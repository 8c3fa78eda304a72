"""Sessions that share connections share the event loop."""

import asyncio

from ctxcache import AsyncSession


async def test_sessions_with_other_options_share_the_loop() -> None:
    """A session of `with_options` belongs to the loop of the session that it was made from, also when made before."""
    session = AsyncSession("sk-x", "http://127.0.0.1:1/v1")
    other = session.with_options(retry=0)
    assert other.loop is None
    async with session:
        assert other.loop is session.loop is asyncio.get_running_loop()
