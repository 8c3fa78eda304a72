"""A process that asks: `asker.py URL KEY PLACE`. Twice: says `ready`, waits for a line, asks twenty questions at once.

PLACE is a Redis URL, or the path of an SQLite file. Then it says what it was answered, as a set.
"""

import asyncio
import sys
from contextlib import aclosing

from ctxcache import AsyncSession, Retry, system
from ctxcache.managed import Prefix, RedisStore, SQLiteStore


async def main(url: str, key: str, place: str) -> None:
    """Ask."""
    store = RedisStore(place) if place.startswith("redis:") else SQLiteStore(place)
    async with aclosing(store), AsyncSession(key, url, retry=Retry(first_delay=0)) as session:
        prefix = Prefix(session, model="m", messages=[system("The manual.")], store=store)
        for _ in range(2):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)
            replies = await asyncio.gather(*(prefix.ask(f"{number}?") for number in range(20)))
            sys.stdout.write(f"{sorted({reply.text for reply in replies})}\n")
            sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
