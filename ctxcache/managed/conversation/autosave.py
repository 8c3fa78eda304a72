"""`Autosave`: writes a conversation to a file after every change, without stopping the event loop.

- The file is replaced as a whole: a reader finds the old text or the new, never a part, whoever is killed meanwhile.
- The writes run in a thread of this conversation's own, which ends when the newest state is written. So a disk that
  hangs holds up no other use of threads, such as name lookups, and there is one thread for each conversation at most.
- A late write never brings back an old state, since each writes the newest.
- A caller that is cancelled stops waiting; the write goes on.
- A failure never fails a turn: the failure is reported, and the next change is written anew.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from ...errors import InvalidInputError
from ...log import log, one_line
from ..deadline import Deadline
from .saved import SavedConversation

__all__ = ["Autosave", "check_path", "read_file"]

_PATIENCE: Final = 5.0  # seconds that a turn waits for a disk that hangs


def check_path(path: object, *, new: bool) -> str:
    """Return the path of the file to save to, absolute, without symbolic links.

    Args:
        path: as the caller gave the path.
        new: whether a file that has something in it is refused.

    Raises:
        InvalidInputError: no such path.
    """
    allowed = "the path of a file in an existing folder, or None"
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidInputError.of("autosave", path, allowed)
    whole = os.path.realpath(name)  # the process may change its folder
    if os.path.isdir(whole) or not os.path.isdir(os.path.dirname(whole)):
        raise InvalidInputError.of("autosave", name, allowed)
    if new and os.path.exists(whole) and os.path.getsize(whole):
        allowed = "a new file: Conversation.load goes on with a saved conversation; delete the file to begin anew"
        raise InvalidInputError.of("autosave", name, allowed)
    return whole


def read_file(path: "os.PathLike[str]") -> str:
    """Return the text of a saved conversation's file.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        problem = "no UTF-8 text"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise InvalidInputError(f"text must be the path of a saved conversation: {problem}", field="text")


class Autosave:
    """Writes the states of one conversation to one file.

    Args:
        path: from `check_path`.
        report: is told why the conversation could not be saved; once until a write succeeds.
        patience: the most seconds to wait for a write.
    """

    def __init__(
        self, path: str, report: Callable[[str, Exception | None], object], patience: float = _PATIENCE
    ) -> None:
        self._path = path
        self._report = report
        self._patience = patience
        self._lock = threading.Lock()  # of the next two
        self._newest: SavedConversation | None = None  # until the thread takes the state
        self._busy = False  # whether there is a thread
        self._written: asyncio.Future[None] | None = None
        self._failing = False

    def begin(self, saved: SavedConversation) -> None:
        """Begin to write a state; to be called in the event loop."""
        with self._lock:
            self._newest = saved
            if self._busy:
                return  # the thread will write this state, too
            self._busy = True
        loop = asyncio.get_running_loop()
        self._written = loop.create_future()
        write = partial(self._write, loop, self._written)
        try:
            threading.Thread(target=write, name="ctxcache-autosave").start()
        except RuntimeError:  # the process is ending, or has too many threads: better to wait here than not to save
            write()

    async def written(self, deadline: Deadline | None = None) -> None:
        """Wait until the newest state is written, or cannot be, or the deadline has come."""
        if self._written is None:
            return
        patience = self._patience if deadline is None else min(self._patience, deadline.left)
        _, late = await asyncio.wait([self._written], timeout=patience)  # which cancels nothing
        if late and patience:
            self._fail(f"not written after {patience:.3g} s", None)

    def _write(self, loop: asyncio.AbstractEventLoop, written: "asyncio.Future[None]") -> None:
        """Write the newest state, in the thread, until there is no newer one."""
        failure: Exception | None = None
        while (saved := self._take()) is not None:
            try:
                _replace(self._path, saved.dumps())
                failure = None
            except Exception as error:
                failure = error.with_traceback(None)  # whose frames hold what was said
        try:
            loop.call_soon_threadsafe(self._end, written, failure)
        except RuntimeError:  # the event loop was closed meanwhile: too late for hooks
            if failure is not None:
                log.warning("%s", one_line(self._message(failure)))

    def _take(self) -> SavedConversation | None:
        """Take the newest state; None: the thread ends."""
        with self._lock:
            saved, self._newest = self._newest, None
            self._busy = saved is not None
            return saved

    def _end(self, written: "asyncio.Future[None]", failure: Exception | None) -> None:
        if not written.done():
            written.set_result(None)
        if failure is None:
            self._failing = False
        else:
            self._fail(failure, failure)

    def _fail(self, problem: object, error: Exception | None) -> None:
        if not self._failing:
            self._failing = True
            self._report(self._message(problem), error)

    def _message(self, problem: object) -> str:
        kind = f"{type(problem).__name__}: " if isinstance(problem, Exception) else ""
        return f"the conversation could not be saved to {self._path!r}: {kind}{problem}"


def _replace(path: str, text: str) -> None:
    """Replace a file as a whole; the new one is readable by its owner only."""
    import tempfile  # would slow the import of the package

    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".ctxcache-", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new name last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
