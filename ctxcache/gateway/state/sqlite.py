"""A state in an SQLite file.

One thread writes. Everything that waits is written in one transaction, so that a disk that takes 10 ms for each still
keeps thousands of turns a second; where a transaction fails, each of its writes is tried alone. A turn is on the disk
(write-ahead log, fsync) when `append` returns. Idle timers and ended contexts are written with the next turn, or after
a second.

A message is a row of its own, numbered within the context: the messages of the create below 0, the history from 0 up. A
turn costs its own messages, however long the history is.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeAlias

from ...errors import APIStatusError, CtxCacheError, InvalidInputError, SessionError
from ..rules.clients import KeyLimits
from ..rules.records import ContextRecord, decode_message, decode_settings, encode_message, encode_settings
from ..rules.refusals import not_kept
from ..rules.sizes import SizedMessage

__all__ = ["SQLiteState"]

_APPLICATION_ID: Final = 0x63747873  # "ctxs": marks the file as a state
_LAYOUT: Final = 1
_CREATE: Final = (
    "CREATE TABLE contexts (id TEXT PRIMARY KEY, settings BLOB NOT NULL, deadline REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE messages (context TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,"
    " PRIMARY KEY (context, number)) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_LAYOUT}",
)
_EXPIRED: Final = (
    "DELETE FROM messages WHERE context IN (SELECT id FROM contexts WHERE deadline <= :now)",
    "DELETE FROM contexts WHERE deadline <= :now",
)
_ADD_CONTEXT: Final = "INSERT INTO contexts (id, settings, deadline) VALUES (?, ?, ?)"
_ADD_MESSAGE: Final = "INSERT INTO messages (context, number, body) VALUES (?, ?, ?)"
_NEXT: Final = "SELECT COALESCE(MAX(number) + 1, 0) FROM messages WHERE context = ? AND number >= 0"
_OLDEST: Final = "SELECT MIN(number) FROM messages WHERE context = ? AND number >= 0"
_DROP: Final = "DELETE FROM messages WHERE context = ? AND number >= 0 AND number < ?"
_TOUCH: Final = "UPDATE contexts SET deadline = MAX(deadline, ?) WHERE id = ?"
_FORGET: Final = ("DELETE FROM messages WHERE context = ?", "DELETE FROM contexts WHERE id = ?")

_TOUCH_SECONDS: Final = 1.0

Write: TypeAlias = Callable[[sqlite3.Connection], None]


class SQLiteState:
    """Keeps the contexts of one gateway in a file, which a gateway that is killed leaves whole.

    The file must be on a local disk, and is created on first use, readable by its owner only; `-wal` and `-shm` lie
    beside it. A second gateway cannot use the file at the same time.

    Args:
        path: of the file; its folder must exist.
        clock: the wall clock of the gateway, Unix seconds.

    Raises:
        InvalidInputError: for anything but a path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        _touch_seconds: float = _TOUCH_SECONDS,
    ) -> None:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(name, str) or name in ("", ":memory:") or "://" in name:
            raise InvalidInputError.of("state", path, "the path of a file")
        self._path: Final = os.path.abspath(name)
        self._clock: Final = clock
        self._touch_seconds: Final = _touch_seconds
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._deadlines: dict[str, float] = {}
        self._ended: list[str] = []
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<SQLiteState {self._path!r}>"

    async def start(self) -> Collection[ContextRecord]:
        """Open the file; return the contexts that have not expired.

        Raises:
            SessionError: the file cannot be used, is in use, or is no state of this version.
        """
        thread = self._thread = ThreadPoolExecutor(1, "ctxcache-state")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._open)
        except (sqlite3.Error, CtxCacheError, LookupError, TypeError) as error:  # the latter: of damaged rows
            locked = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            problem = "another gateway uses the file" if locked else str(error)
        except OSError as error:
            problem = error.strerror or str(error)
        await self.aclose()
        raise SessionError(f"cannot keep contexts in {self._path}: {problem}")

    def _open(self) -> list[ContextRecord]:
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the end: a second gateway is refused
        with _transaction(connection):
            _create(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with _transaction(connection):
            for statement in _EXPIRED:
                connection.execute(statement, {"now": self._clock()})
        return _read(connection)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def create(self, record: ContextRecord, limits: KeyLimits) -> None:
        """Keep a new context."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_ADD_CONTEXT, (record.id, encode_settings(record), record.deadline))
            _add(connection, record.id, -len(record.initial), record.initial)

        await self._write(write)

    async def append(self, context_id: str, turn: Sequence[SizedMessage], dropped: int, deadline: float) -> None:
        """Keep a completed turn, whole or not at all, then drop the oldest messages of the history."""

        def write(connection: sqlite3.Connection) -> None:
            _add(connection, context_id, connection.execute(_NEXT, (context_id,)).fetchone()[0], turn)
            if dropped:
                oldest = connection.execute(_OLDEST, (context_id,)).fetchone()[0]
                connection.execute(_DROP, (context_id, oldest + dropped))
            connection.execute(_TOUCH, (deadline, context_id))

        await self._write(write)

    def release(self, context_id: str, deadline: float | None) -> None:
        """Keep the new end of an idle timer, after a second at most."""
        if deadline is not None:
            self._deadlines[context_id] = deadline
            self._write_soon()

    def forget(self, context_id: str) -> None:
        """Drop a context, after a second at most."""
        self._deadlines.pop(context_id, None)
        self._ended.append(context_id)
        self._write_soon()

    async def aclose(self) -> None:
        """Write what waits, and close the file."""
        thread = self._thread
        if thread is None:
            return
        with suppress(APIStatusError):
            await self._write(_nothing)
        self._stop_timer()
        self._thread = None
        await asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown()

    # --- the writer

    async def _write(self, write: Write) -> None:
        """Write in the next transaction, and wait for the end of that.

        Raises:
            APIStatusError: the file could not be written (503).
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, written))
        self._start_writer()
        await written

    def _write_soon(self) -> None:
        if self._timer is None and self._thread is not None:
            self._timer = asyncio.get_running_loop().call_later(self._touch_seconds, self._write_now)

    def _write_now(self) -> None:
        self._waiting.append((_nothing, asyncio.get_running_loop().create_future()))
        self._start_writer()

    def _start_writer(self) -> None:
        self._stop_timer()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write_waiting(self) -> None:
        """Write until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                aside, self._deadlines, self._ended = (self._deadlines, self._ended), {}, []
                writes = [write for write, _ in batch]
                writes.append(partial(_write_aside, *aside))
                problems = await loop.run_in_executor(self._thread, self._write_each, writes)
                for (_, written), problem in zip(batch, problems, strict=False):
                    if written.done():
                        continue  # the caller was cancelled
                    if problem is None:
                        written.set_result(None)
                    else:
                        written.set_exception(not_kept(problem))
                if problems[-1] is not None:
                    self._put_back(*aside)
        finally:
            self._writer = None

    def _write_each(self, writes: list[Write]) -> list[str | None]:
        """Carry out all writes in one transaction, or each in its own; return for each what went wrong."""
        problem = self._write_together(writes)
        if problem is None or len(writes) == 1:
            return [problem] * len(writes)
        return [self._write_together([write]) for write in writes]

    def _write_together(self, writes: list[Write]) -> str | None:
        if self._connection is None:
            return "the file is not open"
        try:
            with _transaction(self._connection):
                for write in writes:
                    write(self._connection)
        except Exception as error:  # whatever it is, the callers must hear of it
            return str(error) or repr(error)
        return None

    def _put_back(self, deadlines: dict[str, float], ended: list[str]) -> None:
        """Let what could not be written wait for the next time."""
        self._deadlines = {**deadlines, **self._deadlines}
        self._ended = ended + self._ended
        self._write_soon()


def _nothing(connection: sqlite3.Connection) -> None:
    """Write nothing but what is written with every transaction."""


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _add(connection: sqlite3.Connection, context_id: str, first: int, messages: Iterable[SizedMessage]) -> None:
    rows = [(context_id, number, encode_message(sized)) for number, sized in enumerate(messages, first)]
    connection.executemany(_ADD_MESSAGE, rows)


def _write_aside(deadlines: dict[str, float], ended: list[str], connection: sqlite3.Connection) -> None:
    connection.executemany(_TOUCH, [(deadline, context_id) for context_id, deadline in deadlines.items()])
    for statement in _FORGET:
        connection.executemany(statement, [(context_id,) for context_id in ended])


def _create(connection: sqlite3.Connection) -> None:
    """Create the tables of a new file.

    Raises:
        sqlite3.DatabaseError: the file is something else, or of another version.
    """
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found == [0, 0] and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        for statement in _CREATE:
            connection.execute(statement)
    elif found != [_APPLICATION_ID, _LAYOUT]:
        raise sqlite3.DatabaseError("the file is no state of this version of ctxcache")


def _read(connection: sqlite3.Connection) -> list[ContextRecord]:
    """Read every context."""
    messages: dict[str, tuple[list[SizedMessage], list[SizedMessage]]] = {}
    for context_id, number, body in connection.execute("SELECT * FROM messages ORDER BY context, number"):
        initial, history = messages.setdefault(context_id, ([], []))
        (initial if number < 0 else history).append(decode_message(body))
    records = []
    for context_id, settings, deadline in connection.execute("SELECT id, settings, deadline FROM contexts"):
        initial, history = messages.pop(context_id)
        fields = decode_settings(settings)
        records.append(ContextRecord(id=context_id, **fields, initial=initial, history=history, deadline=deadline))
    return records
