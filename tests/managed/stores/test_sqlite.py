"""The store in an SQLite file."""
# ruff: noqa: ASYNC240  # nobody else waits while a test looks at its own small file

import asyncio
import gc
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ctxcache import CtxCacheError, InvalidInputError
from ctxcache.managed.stores import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the file; there is none yet."""
    return tmp_path / "contexts.db"


@pytest.fixture
async def store(path: Path, quiet_loop: None) -> AsyncIterator[SQLiteStore]:
    """A store on the file."""
    store = SQLiteStore(path)
    yield store
    await store.aclose()


def threads_of_stores() -> list[threading.Thread]:
    """The threads that stores have."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("ctxcache-store")]


async def test_nothing_is_made_before_the_first_use(path: Path, store: SQLiteStore) -> None:
    """No file, no thread."""
    assert not path.exists()
    assert threads_of_stores() == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
async def test_only_its_owner_reads_the_file(path: Path, store: SQLiteStore) -> None:
    """Nor the two beside it, which are there while somebody has it open."""
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM contexts").fetchall()
        await store.put("k", "ctx-1", 60, 60)
        found = sorted(path.parent.iterdir())
        assert [file.name for file in found] == ["contexts.db", "contexts.db-shm", "contexts.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in found} == {0o600}


async def test_it_is_in_write_ahead_mode(path: Path, store: SQLiteStore) -> None:
    """So that who reads never waits for who writes."""
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        assert await store.get("k") is not None


async def test_nothing_stays_open(path: Path, store: SQLiteStore) -> None:
    """Between two operations no file is held, and none lies beside the one."""
    await store.put("k", "ctx-1", 60, 60)
    assert [file.name for file in path.parent.iterdir()] == ["contexts.db"]
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no list of open files on this system")
    assert str(path) not in {str(link.readlink()) for link in descriptors.iterdir() if link.is_symlink()}


async def test_the_file_does_not_grow_for_ever(path: Path) -> None:
    """What has passed its time is removed in passing."""
    now = 0.0
    store = SQLiteStore(path, clock=lambda: now)
    for number in range(50):
        now += 10
        await store.put(f"k{number}", "ctx-1", 60, 60)
        await store.lease(f"k{number}", "me", 60)
        await store.pause(f"k{number}", 60)
    await store.aclose()
    with closing(sqlite3.connect(path)) as other:
        for table, most in (("contexts", 7), ("leases", 14)):  # a pause lies among the leases
            assert other.execute(f"SELECT count(*) FROM {table}").fetchone()[0] <= most


@pytest.mark.parametrize("change", ["until = 1e18", "until = 'soon'", "until = x'00'", "until = until + 31"])
async def test_a_lease_with_an_absurd_end_is_over(path: Path, store: SQLiteStore, change: str) -> None:
    """A damaged row, or a clock that was set back, delays nobody."""
    assert await store.lease("k", "a holder", 30)
    damage(path, f"UPDATE leases SET {change}")
    assert await store.lease("k", "me", 30)
    assert not await store.lease("k", "a holder", 30)


@pytest.mark.parametrize("change", ["until = 1e18", "until = 'soon'", "until = x'00'", "until = until + 3601"])
async def test_a_pause_with_an_absurd_end_is_over(path: Path, store: SQLiteStore, change: str) -> None:
    """A damaged row, or a clock that was set back, pauses nobody, and gives way to the next pause."""
    await store.pause("k", 60)
    damage(path, f"UPDATE leases SET {change}")
    assert await store.paused("k") == 0
    await store.pause("k", 30)
    assert 20 < await store.paused("k") <= 30


async def test_a_clock_set_back_delays_nobody(path: Path, quiet_loop: None) -> None:
    """A lease taken before ends far in the future, which nobody meant."""
    now = 2e9
    store = SQLiteStore(path, clock=lambda: now)
    assert await store.lease("k", "a holder", 30)
    now = 1e9
    assert await store.lease("k", "me", 30)
    await store.aclose()


@pytest.mark.parametrize(
    "change", ["id = ''", "id = x'00ff'", "ttl = 'soon'", "ttl = -1.0", "ttl = 9e999", "until = 'z'"]
)
async def test_a_damaged_row_is_no_context(path: Path, store: SQLiteStore, change: str) -> None:
    """It is not found, and the next put takes its place."""
    await store.put("k", "ctx-1", 60, 60)
    damage(path, f"UPDATE contexts SET {change}")
    assert await store.get("k") is None
    await store.put("k", "ctx-2", 60, 60)
    found = await store.get("k")
    assert found is not None
    assert found.id == "ctx-2"


def damage(path: Path, statement: str) -> None:
    """Change the file behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)


@pytest.fixture
async def patient(path: Path, quiet_loop: None) -> AsyncIterator[SQLiteStore]:
    """A store that waits for a locked file, however slow the machine is."""
    store = SQLiteStore(path, _busy_seconds=60.0)
    yield store
    await store.aclose()


async def test_the_event_loop_never_waits(path: Path, patient: SQLiteStore) -> None:
    """While another process has the file locked, other tasks run; then the operation goes on."""
    store = patient
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(store.lease("k", "me", 60))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert await waiting


async def test_a_file_that_stays_locked_is_an_error_once(path: Path, quiet_loop: None) -> None:
    """After it the store is as usable as before."""
    store = SQLiteStore(path, _busy_seconds=0.01)
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await store.lease("k", "me", 60)
    assert await store.lease("k", "me", 60)
    await store.aclose()


async def test_a_folder_that_is_missing_is_an_error_until_it_is_there(tmp_path: Path) -> None:
    """The next operation begins afresh."""
    store = SQLiteStore(tmp_path / "later" / "contexts.db")
    with pytest.raises(OSError, match="later"):
        await store.get("k")
    (tmp_path / "later").mkdir()
    assert await store.get("k") is None
    await store.aclose()


async def test_a_deleted_file_is_made_again(path: Path, store: SQLiteStore) -> None:
    """Empty."""
    await store.put("k", "ctx-1", 60, 60)
    path.unlink()
    assert await store.get("k") is None
    assert await store.lease("k", "me", 60)


async def test_a_file_of_somebody_else_s_is_left_alone(path: Path, store: SQLiteStore) -> None:
    """A database of another program is refused, and not changed by a byte."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(CtxCacheError, match="not a store of this version"):
        await store.get("k")
    assert path.read_bytes() == before


async def test_a_file_of_another_version_is_left_alone(path: Path, store: SQLiteStore) -> None:
    """It may hold what this version does not know."""
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(CtxCacheError, match="not a store of this version"):
        await store.get("k")


async def test_a_file_that_is_no_database_is_left_alone(path: Path, store: SQLiteStore) -> None:
    """SQLite itself says so."""
    path.write_text("a text, longer than the head of a database file\n" * 10)
    with pytest.raises(sqlite3.DatabaseError):
        await store.put("k", "ctx-1", 60, 60)
    assert path.read_text().startswith("a text")


@pytest.mark.parametrize("path", ["", ":memory:", b"contexts.db", None, 3])
def test_what_is_no_path_of_a_file_is_refused(path: Any) -> None:
    """At once, and with the name of the argument."""
    with pytest.raises(InvalidInputError) as caught:
        SQLiteStore(path)
    assert caught.value.field == "path"


async def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folder the process goes to later."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("contexts.db")
    monkeypatch.chdir("/")
    await store.put("k", "ctx-1", 60, 60)
    assert (tmp_path / "contexts.db").exists()
    assert repr(store) == f"<SQLiteStore {str(tmp_path / 'contexts.db')!r}>"
    await store.aclose()


async def test_closing_ends_the_thread(store: SQLiteStore) -> None:
    """When `aclose` returns it is gone."""
    await store.put("k", "ctx-1", 60, 60)
    assert len(threads_of_stores()) == 1
    await store.aclose()
    assert threads_of_stores() == []


async def test_a_forgotten_store_leaves_nothing(path: Path, quiet_loop: None) -> None:
    """No thread, and no warning."""
    store = SQLiteStore(path)
    await store.put("k", "ctx-1", 60, 60)
    [thread] = threads_of_stores()
    del store
    gc.collect()
    thread.join(timeout=60)
    assert not thread.is_alive()


async def test_giving_back_never_overtakes_taking(path: Path, patient: SQLiteStore) -> None:
    """A lease whose taking was cancelled in the middle is free once `release` returns."""
    store = patient
    await store.put("k", "ctx-1", 60, 60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        taking = asyncio.ensure_future(store.lease("k", "me", 60))
        for _ in range(100):
            await asyncio.sleep(0)
        taking.cancel()
        other.execute("ROLLBACK")
    await store.release("k", "me")
    assert await store.lease("k", "you", 60)


def test_any_number_of_event_loops_share_one(path: Path) -> None:
    """One after the other, and in threads at once."""
    store, got = SQLiteStore(path), []
    asyncio.run(store.put("k", "ctx-1", 60, 60))

    def run(holder: str) -> None:
        got.append(asyncio.run(store.lease("k", holder, 60)))

    threads = [threading.Thread(target=run, args=(f"holder-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 3 + [True]
    asyncio.run(store.aclose())
    assert threads_of_stores() == []


FORKED = """
import asyncio, os, sys
from ctxcache.managed.stores import SQLiteStore

store = SQLiteStore(sys.argv[1])
asyncio.run(store.put("k", "ctx-1", 60, 60))
child = os.fork()
assert asyncio.run(store.get("k")).id == "ctx-1"
asyncio.run(store.aclose())
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_it_works_on_both_sides_of_a_fork(path: Path) -> None:
    """As in a server that forks its workers after it has started."""
    # From 3.12 on Python warns of any fork beside a thread.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, str(path)]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_neither_library_is_imported_before_a_store_is_made() -> None:
    """Importing the stores costs what they are made of, not what they may use."""
    script = (
        "import sys; [sys.modules.pop(name, None) for name in ('sqlite3', 'redis')];"  # what measures coverage has one
        "import ctxcache.managed.stores as stores; stores.MemoryStore(); stores.SQLiteStore('x');"
        "assert not {'sqlite3', 'redis'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
