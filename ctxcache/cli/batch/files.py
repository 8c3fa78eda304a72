"""The files of a batch: found, locked, replaced. A file belongs to the one process that holds its lock."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

from ...errors import InvalidInputError
from .shards import Shard, find_shards

__all__ = [
    "allow_open_files",
    "check_layout",
    "is_locked",
    "open_locked",
    "refuse",
    "refuse_change",
    "replacing",
    "written_shards",
]

_WAY_OUT: Final = "undo the change, give another --out, or start over with --fresh"
_OTHER_FILES: Final = 64  # libraries, streams, the questions, the merged file
_BUSY: Final = "another process writes to it"
_LOOKS: Final = 100
_LOOK_SECONDS: Final = 0.001


def refuse(name: str, problem: str) -> InvalidInputError:
    """Return the error for a place that cannot be used."""
    return InvalidInputError(f"{name}: {problem}", field="out")


def refuse_change(name: str, change: str) -> InvalidInputError:
    """Return the error for answers that belong to other questions or settings."""
    return refuse(name, f"was written for {change}: {_WAY_OUT}")


# --- shards -----------------------------------------------------------------------------------------------------------


def written_shards(out: str) -> list[Shard]:
    """Return the shards of a batch whose files have content, or, if none has, those whose files exist."""
    try:
        shards = find_shards(os.listdir(os.path.dirname(out) or "."), out)
    except OSError:
        return []  # the journal says why
    return [shard for shard in shards if _size(shard.file(out))] or shards


def check_layout(out: str, shard: Shard | None) -> None:
    """Check that a batch was not begun with another number of shards, where its answers would be paid twice.

    Raises:
        InvalidInputError: there are answers of another number of shards.
    """
    written = [found for found in written_shards(out) if _size(found.file(out))]
    if shard is None:
        if written and not _size(out):
            way_out = f"go on with --shard I/{written[0].count}, use --merge, or give another --out"
            raise refuse(written[0].file(out), f"has answers of a start with shards: {way_out}")
        return
    for other in written:
        if other.count != shard.count:
            shards = f"{other.count} shard{'' if other.count == 1 else 's'}"
            way_out = f"go on with --shard I/{other.count}, or give another --out"
            raise refuse(other.file(out), f"has answers of a start with {shards}, not {shard.count}: {way_out}")
    if _size(out) and not written:
        way_out = "go on with --shard none, or give another --out"
        raise refuse(out, f"has answers of a start without shards: {way_out}")


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return 0


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files to `count` and a reserve, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


# --- locks ------------------------------------------------------------------------------------------------------------


def open_locked(name: str) -> int:
    """Open a file for reading and appending, create it if missing, and lock it.

    Raises:
        InvalidInputError: the file cannot be opened, or another process holds the lock.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(name, flags, 0o666)
    except OSError as error:
        raise refuse(name, error.strerror or str(error)) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise refuse(name, "not a regular file")
        _lock(name, file)
    except BaseException:
        os.close(file)
        raise
    return file


def _lock(name: str, file: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        for _ in range(_LOOKS):
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # fails if a process writes
            fcntl.flock(file, fcntl.LOCK_UN)  # else `is_locked` looks, for a moment
            time.sleep(_LOOK_SECONDS)
        else:
            raise BlockingIOError
        # Between open and lock another process may have set the file aside.
        replaced = not os.path.samestat(os.fstat(file), os.stat(name))
    except OSError as error:
        busy = isinstance(error, BlockingIOError | FileNotFoundError)
        raise refuse(name, _BUSY if busy else f"no lock: {error.strerror}") from None
    if replaced:
        raise refuse(name, _BUSY)


def is_locked(file: IO[bytes]) -> bool:
    """Whether another process holds the lock of an open file."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    return False


@contextmanager
def replacing(name: str) -> Iterator[IO[bytes]]:
    """Write a new file, which takes the name at the end of the block; after an error the old file stays."""
    new = f"{name}.merging"
    file = open_locked(new)
    try:
        with open(file, "wb", closefd=False) as writer:
            writer.truncate(0)  # from a merge that was killed
            yield writer
            writer.flush()
            os.fsync(file)
        os.replace(new, name)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(new)
        if isinstance(error, OSError):
            raise refuse(name, error.strerror or str(error)) from None
        raise
    finally:
        os.close(file)
