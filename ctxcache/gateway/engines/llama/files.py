"""The files of saved slots: one for each context, within a limit of bytes.

A file holds the computed tokens of a context (its part of the KV cache), at some 20 KB to 200 KB a token. A slot that
restores the file computes only what comes after. Beyond the limit the files used longest ago go; their contexts are
computed again by the next call. No name is used twice, so a file never changes.

A file is `<number>.part` until it is whole, then `<context id>.<number>.slot`. A folder that is kept is read at the
next start: the files of contexts that live still are used again.
"""

import asyncio
import tempfile
from collections.abc import Container
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

import attrs

__all__ = ["SlotFiles"]


@attrs.frozen
class _Saved:
    name: str
    size: int


class SlotFiles:
    """The saved slots of a server and its successors, in a folder that no other user can read.

    Args:
        limit: the most bytes of all files.
        parent: the folder in which the folder is made; None is the system's folder for temporary files.
        kept: the name of a folder that is kept after the end; None makes a new one, which is removed.

    Attributes:
        folder: the folder.
        size: the bytes of all files.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, limit: int, parent: Path | None = None, kept: str | None = None) -> None:
        self._limit: Final = limit
        self._saved: dict[str, _Saved] = {}  # the file used longest ago first
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.size = 0
        if kept is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ctxcache-llama-", dir=parent)  # mode 700
            self.folder = Path(self._temporary.name)
            self._numbers = count(1)
        else:
            self.folder = (parent or Path(tempfile.gettempdir())) / kept
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._numbers = count(1 + self._read())

    def _read(self) -> int:
        """Take over the files of an earlier run; return the highest number."""
        highest = 0
        for path in sorted(self.folder.iterdir(), key=_modified):
            context_id, _, number = path.stem.rpartition(".")
            if path.suffix == ".slot" and context_id and number.isdecimal():
                highest = max(highest, int(number))
                self._take(context_id, path.name)
            elif path.suffix == ".part":
                _unlink(path)  # the process ended while this was written
        return highest

    def keep_only(self, context_ids: Container[str]) -> None:
        """Remove the files of all other contexts."""
        for context_id in [name for name in self._saved if name not in context_ids]:
            self.forget(context_id)

    def find(self, context_id: str) -> str | None:
        """Return the name of a context's file, which counts as a use; None if there is no file."""
        saved = self._saved.pop(context_id, None)
        if saved is None:
            return None
        self._saved[context_id] = saved
        return saved.name

    def new_name(self) -> str:
        """Return a name for a file that is to be written; `add` or `discard` follows."""
        return f"{next(self._numbers)}.part"

    def add(self, context_id: str, name: str) -> None:
        """Take over a file that was written, in place of the context's former one, and keep the limit.

        Raises:
            OSError: there is no such file.
        """
        whole = f"{context_id}.{name.removesuffix('.part')}.slot"
        (self.folder / name).rename(self.folder / whole)
        self._take(context_id, whole)

    def _take(self, context_id: str, name: str) -> None:
        size = (self.folder / name).stat().st_size
        self.forget(context_id)
        self._saved[context_id] = _Saved(name, size)
        self.size += size
        while self.size > self._limit:
            self.forget(next(iter(self._saved)))

    def forget(self, context_id: str) -> None:
        """Remove the file of a context, if there is one."""
        saved = self._saved.pop(context_id, None)
        if saved is not None:
            self.size -= saved.size
            self.discard(saved.name)

    def discard(self, name: str) -> None:
        """Remove a file, whole or not."""
        path = self.folder / name
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _unlink(path)
        else:
            loop.run_in_executor(None, _unlink, path)  # gigabytes take a while

    def close(self) -> None:
        """Remove the folder with every file, unless it is kept."""
        self._saved.clear()
        self.size = 0
        if self._temporary is not None:
            self._temporary.cleanup()


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _unlink(path: Path) -> None:
    with suppress(OSError):  # such as a file that is being read, on Windows
        path.unlink(missing_ok=True)
