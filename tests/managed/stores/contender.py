"""A process that contends with others: `contender.py FOLDER hold|write|create STORE…`.

Says `ready`, waits for a line, begins.

hold: takes the lease of the key `k`, says `held`, and keeps it until it is killed.
write: says `held`, and writes until it is killed.
create: sees to it that each of ten keys has a context, and writes a line into FOLDER/created for each it made.
"""

import asyncio
import os
import random
import sys
from contextlib import aclosing
from pathlib import Path

from ctxcache.managed.stores import RedisStore, SQLiteStore, Store

KEYS = [f"k{number}" for number in range(10)]
SECONDS = 3600.0


def store_of(kind: str, place: str, *rest: str) -> Store:
    """Make the store."""
    return SQLiteStore(place) if kind == "sqlite" else RedisStore(place, prefix=rest[0])


def say(word: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def hold(store: Store, folder: Path) -> None:
    """Take the lease and keep it."""
    assert await store.lease("k", f"holder-{os.getpid()}", SECONDS)
    say("held")
    await asyncio.Event().wait()


async def write(store: Store, folder: Path) -> None:
    """Write for ever."""
    say("held")
    while True:
        await store.put("k", f"ctx-{os.getpid()}", SECONDS, SECONDS)
        await store.touch("k", f"ctx-{os.getpid()}", 2 * SECONDS)
        await store.lease("k", f"holder-{os.getpid()}", SECONDS)


async def create(store: Store, folder: Path) -> None:
    """Create what is not there, with the lease."""
    me = f"holder-{os.getpid()}"
    for key in KEYS:
        while await store.get(key) is None:
            if await store.lease(key, me, SECONDS):
                await create_one(store, folder, key)
                await store.release(key, me)
            await asyncio.sleep(random.uniform(0, 0.01))


async def create_one(store: Store, folder: Path, key: str) -> None:
    """Create a context, and fail if another process is doing the same."""
    mark = folder / f"creating-{key}"
    mark.touch(exist_ok=False)
    if await store.get(key) is None:
        await asyncio.sleep(random.uniform(0, 0.01))
        with (folder / "created").open("a") as created:
            created.write(f"{key}\n")
        await store.put(key, f"ctx-{os.getpid()}", SECONDS, SECONDS)
    mark.unlink()


async def main(folder: str, what: str, *spec: str) -> None:
    """Do what the command line says."""
    say("ready")
    sys.stdin.readline()
    async with aclosing(store_of(*spec)) as store:
        await {"hold": hold, "write": write, "create": create}[what](store, Path(folder))


asyncio.run(main(*sys.argv[1:]))
