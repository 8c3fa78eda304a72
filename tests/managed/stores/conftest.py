"""The three stores behind one face, with a clock that tests move, and a Redis server for all tests."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ctxcache.managed.stores import MemoryStore, RedisStore, SQLiteStore, Store

from ..redis_server import BINARY, NO_BINARY, redis_server


class Shelf:
    """A place where stores keep things, and its time."""

    def __init__(self) -> None:
        self.made: list[Store] = []

    def store(self) -> Store:
        """Make a store object over this place."""
        self.made.append(self._make())
        return self.made[-1]

    def spec(self) -> list[str]:
        """What `contender.py` makes a store of."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        raise NotImplementedError

    def _make(self) -> Store:
        raise NotImplementedError


class Memory(Shelf):
    """In this process."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        """See `Shelf`."""
        self.now += seconds

    def _make(self) -> Store:
        return MemoryStore(clock=lambda: self.now)


class SQLite(Shelf):
    """In a file; this process's clock runs ahead of the others'."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ahead = 0.0

    def spec(self) -> list[str]:
        """See `Shelf`."""
        return ["sqlite", str(self.path)]

    def advance(self, seconds: float) -> None:
        """See `Shelf`."""
        self.ahead += seconds

    def _make(self) -> Store:
        return SQLiteStore(self.path, clock=lambda: time.time() + self.ahead)


class Redis(Shelf):
    """In a server. Its clock cannot be moved, so the end of every key is."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.prefix = f"{secrets.token_hex(8)}:"

    def spec(self) -> list[str]:
        """See `Shelf`."""
        return ["redis", self.url, self.prefix]

    def advance(self, seconds: float) -> None:
        """See `Shelf`."""
        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(f"{self.prefix}*"):
                client.pexpire(key, int(client.pttl(key) - 1000 * seconds))

    def _make(self) -> Store:
        return RedisStore(self.url, prefix=self.prefix)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real server, one for all tests: use a prefix of your own."""
    if BINARY is None:
        pytest.skip(NO_BINARY)
    with redis_server() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def shelf(request: pytest.FixtureRequest, quiet_loop: None, tmp_path: Path) -> AsyncIterator[Any]:
    """Each kind of store in turn; what a test makes is closed at its end."""
    shelves = {
        "memory": Memory,
        "sqlite": lambda: SQLite(tmp_path / "contexts.db"),
        "redis": lambda: Redis(request.getfixturevalue("redis_url")),
    }
    shelf = shelves[request.param]()
    yield shelf
    for store in shelf.made:
        await store.aclose()


@pytest.fixture
def store(shelf: Shelf) -> Store:
    """A store of each kind in turn."""
    return shelf.store()
