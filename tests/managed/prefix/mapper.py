"""A process that maps until it is killed: `mapper.py URL KEY PLACE NAME`.

PLACE is a Redis URL, or the path of an SQLite file; NAME is sent as the user of each question.
"""

import asyncio
import sys
from contextlib import aclosing
from itertools import count

from ctxcache import AsyncSession, system
from ctxcache.managed import Prefix, RedisStore, SQLiteStore


async def main(url: str, key: str, place: str, name: str) -> None:
    """Ask."""
    store = RedisStore(place) if place.startswith("redis:") else SQLiteStore(place)
    async with aclosing(store), AsyncSession(key, url) as session:
        prefix = Prefix(session, model="m", messages=[system("The manual.")], store=store)
        async for _ in prefix.map((f"{number}?" for number in count()), concurrency=2, user=name):
            pass


asyncio.run(main(*sys.argv[1:]))
