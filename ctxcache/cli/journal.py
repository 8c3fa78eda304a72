"""The file with the answers of `ctxcache map`: written so that a process can be killed at any moment, and go on.

A line is written whole, by one call to the system, at the file's end, by the one process that holds the lock. So all
that a kill can leave is a part of the last line, without its line end; it is cut off at the next start. What was
answered is known by its line number, one bit each. Whether the questions are still those that were answered is known
without keeping them: both files are summed up, line by line in any order, and the sums must agree.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ..config import UNSET
from ..errors import CtxCacheError, InvalidInputError
from ..models import ChatCompletion, Usage
from .questions import NumberedQuestion

__all__ = ["Journal", "WriteError"]

_BEGINNING: Final = b'{"line": '  # of every line


class WriteError(Exception):
    """The answers cannot be written any more. Not of the package's family: it ends the map."""


class _Sum:
    """Stands for a set of answered questions, in whatever order they were added."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, line: int, hash_: str) -> None:
        self.value += int.from_bytes(hashlib.sha256(f"{line} {hash_}".encode()).digest())


class Journal:
    """The answers so far, and where the next go.

    Args:
        name: of the file; it is made if it is not there.
        most_lines: no question can have a higher line number.

    Attributes:
        count: the questions answered.

    Raises:
        InvalidInputError: it cannot be opened, another process writes it, or it holds something else than answers.
    """

    def __init__(self, name: str, most_lines: int) -> None:
        self.count = 0
        self._name = name
        self._done = bytearray()
        self._sum = _Sum()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(name, flags, 0o666)
        except OSError as error:
            raise self._refuse(error.strerror or str(error)) from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise self._refuse("not a file that can be written, read and written on")
            self._lock()
            self._end = self._read(most_lines)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and let others have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __contains__(self, line: int) -> bool:
        byte, bit = divmod(line, 8)
        return byte < len(self._done) and bool(self._done[byte] >> bit & 1)

    def check(self, questions: Callable[[], Any]) -> int:
        """Read all questions and see that those answered are still the same; return how many there are.

        Raises:
            InvalidInputError: they are not; or one of them is no question.
        """
        count, asked = 0, _Sum()
        for item in questions():
            count += 1
            if item.line in self:
                asked.add(item.line, item.hash)
        if asked.value != self._sum.value:
            raise self._refuse(
                "it answers other questions: the questions were changed. Give another --out, or undo that"
            )
        if os.fstat(self._file).st_size > self._end:
            os.ftruncate(self._file, self._end)
        return count

    def write(self, item: NumberedQuestion, answer: ChatCompletion) -> None:
        """Write an answer.

        Raises:
            WriteError: that failed; the lines before are whole.
        """
        data = _line(item, answer)
        try:
            written = os.write(self._file, data)
            while written < len(data):  # the disk is full, most likely, and this says so
                written += os.write(self._file, data[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise WriteError(f"{self._name}: {error.strerror or error}") from None
        self._end += len(data)
        self._note(item.line, item.hash)

    def _note(self, line: int, hash_: str) -> None:
        byte, bit = divmod(line, 8)
        self._done.extend(bytes(max(byte + 1 - len(self._done), 0)))
        self._done[byte] |= 1 << bit
        self._sum.add(line, hash_)
        self.count += 1

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            problem = (
                "another process writes it" if isinstance(error, BlockingIOError) else f"no lock: {error.strerror}"
            )
            raise self._refuse(problem) from None

    def _read(self, most_lines: int) -> int:
        """Read what is answered; return where the last whole line ends."""
        end = 0
        with open(self._file, "rb", closefd=False) as file:
            for number, data in enumerate(file, start=1):
                torn = not data.endswith(b"\n")
                # What never was an answer is somebody's file, named by mistake.
                if torn and (data.startswith(_BEGINNING) or _BEGINNING.startswith(data)):
                    break
                line, hash_ = (None, None) if torn else _read_line(data)
                if line is None or hash_ is None:
                    raise self._refuse(f"line {number} is no answer that `ctxcache map` wrote")
                if line in self or line > most_lines:
                    why = "again" if line in self else "but there is no such line: the questions were changed"
                    raise self._refuse(f"line {number} answers the question of line {line}, {why}")
                self._note(line, hash_)
                end += len(data)
        return end

    def _refuse(self, problem: str) -> CtxCacheError:
        return InvalidInputError(f"{self._name}: {problem}", field="out")


def _line(item: NumberedQuestion, answer: ChatCompletion) -> bytes:
    fields = {
        "line": item.line,
        "id": item.id,
        "question_hash": item.hash,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": None if answer.usage is None else _usage(answer.usage),
        "request_id": answer.request_id,
    }
    given = {name: value for name, value in fields.items() if value is not UNSET}
    # Half a surrogate pair becomes \udc00, which is how JSON writes it.
    return (json.dumps(given, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in the service's words."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _read_line(data: bytes) -> tuple[int | None, str | None]:
    try:
        fields = json.loads(data)
        line, hash_ = fields["line"], fields["question_hash"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None, None
    good = isinstance(line, int) and not isinstance(line, bool) and line > 0 and isinstance(hash_, str)
    return (line, hash_) if good else (None, None)
