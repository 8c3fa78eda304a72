"""A store in an SQLite file, for the processes of one machine.

Every operation opens the file, runs one transaction and closes the file again, in a thread of the store's own. That
costs a millisecond or two, a few times an hour for each context, and a few times a second while calls are made. In
return, nothing stays open that could leak or outlive a fork, and an error leaves nothing behind. The thread runs the
operations in order, so that the release of a lease never overtakes its taking, even if that was cancelled.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import CtxCacheError, InvalidInputError, SessionError
from ...keywords import suggest_keywords
from .protocol import LONGEST_LEASE, LONGEST_PAUSE, ClosingStore, StoredContext

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_BUSY_SECONDS: Final = 2.0

_APPLICATION_ID: Final = 0x63747863  # "ctxc": marks the file as ours
_LAYOUT: Final = 1
_CREATE: Final = (
    "CREATE TABLE contexts (key TEXT PRIMARY KEY, id TEXT NOT NULL, ttl REAL NOT NULL, until REAL NOT NULL)",
    "CREATE INDEX contexts_until ON contexts (until)",
    "CREATE TABLE leases (key TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_LAYOUT}",
)

# `now` and `until` are Unix seconds.
_GET: Final = """
    SELECT id, ttl, until - :now FROM contexts WHERE key = :key AND until > :now
    AND typeof(id) = 'text' AND id <> '' AND typeof(ttl) = 'real' AND ttl > 0 AND ttl < 1e12 AND typeof(until) = 'real'
"""
_PUT: Final = "INSERT OR REPLACE INTO contexts (key, id, ttl, until) VALUES (:key, :id, :ttl, :until)"
_TOUCH: Final = "UPDATE contexts SET until = :until WHERE key = :key AND id = :id AND until > :now AND until < :until"
_FORGET: Final = "DELETE FROM contexts WHERE key = :key AND id = :id"
# A damaged end, of another type or too far off, is no end.
_LEASE: Final = """
    INSERT INTO leases (key, holder, until) VALUES (:key, :holder, :until)
    ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE leases.holder = excluded.holder OR leases.until <= :now OR leases.until > :now + :longest
    OR typeof(leases.until) <> 'real'
"""
_RELEASE: Final = "DELETE FROM leases WHERE key = :key AND holder = :holder"
# A pause is a lease that nobody holds, under a key of its own: so files of earlier versions need no new table.
_PAUSE: Final = """
    INSERT INTO leases (key, holder, until) VALUES (:key || ':pause', '', :until)
    ON CONFLICT (key) DO UPDATE SET until = excluded.until
    WHERE leases.until < excluded.until OR leases.until > :now + :longest OR typeof(leases.until) <> 'real'
"""
_PAUSED: Final = """
    SELECT until - :now FROM leases WHERE key = :key || ':pause' AND until > :now AND until <= :now + :longest
    AND typeof(until) = 'real'
"""
_READS: Final = (_GET, _PAUSED)
_SWEEP: Final = ("DELETE FROM contexts WHERE until <= :now", "DELETE FROM leases WHERE until <= :now")


class SQLiteStore(ClosingStore):
    """Shares contexts between the processes of one machine, through a file.

    Usable from any number of event loops and threads, and on both sides of a fork. The file must be on a local disk:
    SQLite's write-ahead log does not work over a network. The file is created on first use, readable by its owner only;
    two more (`-wal`, `-shm`) lie beside it during use. A file deleted while nobody uses the store is made again.

    Operations raise `sqlite3.Error` or `OSError` if the file cannot be used, or stays locked for more than 2 seconds;
    the next operation tries again.

    Args:
        path: of the file; its folder must exist.
        clock: Unix seconds, the same for all processes that use the file.

    Raises:
        InvalidInputError: for an empty path or `:memory:`.
    """

    @suggest_keywords
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        _busy_seconds: float = _BUSY_SECONDS,
    ) -> None:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(name, str) or name in ("", ":memory:"):
            raise InvalidInputError.of("path", path, "the path of a file (within one process, use MemoryStore)")
        self._path = os.path.abspath(name)  # the process may change its folder
        self._clock = clock
        self._busy_seconds = _busy_seconds
        self._closed = False
        self._worker = _Worker()

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path!r}{', closed' if self._closed else ''}>"

    async def get(self, key: str) -> StoredContext | None:
        """Return the context kept for a key, None if there is none or it has expired."""
        rows, _ = await self._run(_GET, 0.0, key=key)
        return StoredContext(*rows[0]) if rows else None

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context for `remaining` seconds, in place of any kept before."""
        await self._run(_PUT, remaining, sweep=True, key=key, id=context_id, ttl=ttl)

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """Postpone the expiry of a context; never shorten it, never change another context."""
        await self._run(_TOUCH, remaining, key=key, id=context_id)

    async def forget(self, key: str, context_id: str) -> None:
        """Drop a context, unless another is kept."""
        await self._run(_FORGET, 0.0, key=key, id=context_id)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or extend the lease of a key; False while another holder has it."""
        _, changed = await self._run(_LEASE, min(seconds, LONGEST_LEASE), key=key, holder=holder, longest=LONGEST_LEASE)
        return changed > 0

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        await self._run(_RELEASE, 0.0, key=key, holder=holder)

    async def pause(self, key: str, seconds: float) -> None:
        """Note that nobody is to call for so many seconds; never shorten a pause."""
        await self._run(_PAUSE, min(seconds, LONGEST_PAUSE), key=key, longest=LONGEST_PAUSE)

    async def paused(self, key: str) -> float:
        """Return the seconds until the pause of a key ends; 0 without a pause."""
        rows, _ = await self._run(_PAUSED, 0.0, key=key, longest=LONGEST_PAUSE)
        return float(rows[0][0]) if rows else 0.0

    async def aclose(self) -> None:
        """Wait for the operations under way, and stop the thread."""
        self._closed = True
        await self._worker.aclose()

    async def _run(
        self, statement: str, seconds: float, *, sweep: bool = False, **values: Any
    ) -> tuple[list[Any], int]:
        """Run a statement in the store's thread; return the rows, and how many rows changed."""
        if self._closed:
            raise SessionError("the store is closed")
        return await self._worker.run(lambda: self._carry_out(statement, seconds, sweep, values))

    def _carry_out(self, statement: str, seconds: float, sweep: bool, values: dict[str, Any]) -> tuple[list[Any], int]:
        with closing(_open(self._path, self._busy_seconds)) as connection:  # which rolls back if not committed
            connection.execute("BEGIN" if statement in _READS else "BEGIN IMMEDIATE")
            now = self._clock()  # under the lock, so that no other process comes between
            if sweep:
                for drop in _SWEEP:
                    connection.execute(drop, {"now": now})
            cursor = connection.execute(statement, {"now": now, "until": now + seconds, **values})
            rows = cursor.fetchall()
            connection.execute("COMMIT")
            return rows, cursor.rowcount


def _open(path: str, busy_seconds: float) -> "sqlite3.Connection":
    """Open the file; create it if there is none."""
    import sqlite3

    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # SQLite would make it readable for others
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last writes, never the file
        if _layout(connection) != (_APPLICATION_ID, _LAYOUT):
            _create(connection, path)
        with suppress(sqlite3.OperationalError):  # on first use another process may be doing the same
            connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: "sqlite3.Connection", path: str) -> None:
    """Create the tables, unless another process has.

    Raises:
        CtxCacheError: the file is no store, or one of another version of this package.
    """
    connection.execute("BEGIN EXCLUSIVE")
    if _layout(connection) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        for statement in _CREATE:
            connection.execute(statement)
    found = _layout(connection)
    connection.execute("COMMIT")
    if found != (_APPLICATION_ID, _LAYOUT):
        raise CtxCacheError(f"{path} is not a store of this version of ctxcache: choose another file, or delete it")


def _layout(connection: "sqlite3.Connection") -> tuple[int, int]:
    marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return marks[0], marks[1]


class _Worker:
    """One thread, started at the first use; stopped by `aclose`, or when the store is garbage-collected."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function in the thread, after all earlier ones."""
        if self._executor is None or self._process != os.getpid():  # a fork copies the object, not the thread
            self._executor = ThreadPoolExecutor(1, "ctxcache-store")
            self._process = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def aclose(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None and self._process == os.getpid():
            await asyncio.to_thread(executor.shutdown)
