"""The file with the answers of `ctxcache map`: a process may be killed at any moment, and the next one goes on.

Each line is appended by one system call, by the one process that holds the lock. So a kill can leave only a part of the
last line, without its line end; the next start cuts that part off. An answered question is remembered by its line
number, one bit each. The questions themselves are not kept: the answered lines of both files are summed up, in any
order, and equal sums mean equal questions.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ...config import UNSET
from ...errors import CtxCacheError, InvalidInputError
from ...models import ChatCompletion
from ..usage import usage_json
from .questions import NumberedQuestion

__all__ = ["Journal", "WriteError"]

_BEGINNING: Final = b'{"line": '  # of every line


class WriteError(Exception):
    """An answer cannot be written. Outside the package's family of errors, so that the map ends."""


class _Checksum:
    """A checksum of a set of questions, independent of their order."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, line: int, hash_: str) -> None:
        self.value += int.from_bytes(hashlib.sha256(f"{line} {hash_}".encode()).digest())


class Journal:
    """The answers so far, and a place for the next.

    Args:
        name: of the file, which is created if missing.
        most_lines: highest possible line number of a question.

    Attributes:
        name: of the file.
        count: number of answers.

    Raises:
        InvalidInputError: the file cannot be opened, is written by another process, or holds anything but answers.
    """

    def __init__(self, name: str, most_lines: int) -> None:
        self.count = 0
        self.name = name
        self._done = bytearray()
        self._checksum = _Checksum()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(name, flags, 0o666)
        except OSError as error:
            raise self._refuse(error.strerror or str(error)) from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise self._refuse("not a regular file")
            self._lock()
            self._end = self._read(most_lines)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close and unlock the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __contains__(self, line: int) -> bool:
        byte, bit = divmod(line, 8)
        return byte < len(self._done) and bool(self._done[byte] >> bit & 1)

    def check(self, questions: Callable[[], Any]) -> int:
        """Read all questions, check that the answered ones are unchanged, and return their number.

        Raises:
            InvalidInputError: an answered question was changed, or a line is not a question.
        """
        count, checksum = 0, _Checksum()
        for question in questions():
            count += 1
            if question.line in self:
                checksum.add(question.line, question.hash)
        if checksum.value != self._checksum.value:
            raise self._refuse("was written for different questions: undo the change, or give another --out")
        if os.fstat(self._file).st_size > self._end:
            os.ftruncate(self._file, self._end)
        return count

    def write(self, question: NumberedQuestion, answer: ChatCompletion) -> None:
        """Append an answer.

        Raises:
            WriteError: the line could not be written; earlier lines are whole.
        """
        data = _line(question, answer)
        try:
            written = os.write(self._file, data)
            while written < len(data):  # probably a full disk: the next write raises
                written += os.write(self._file, data[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise WriteError(f"{self.name}: {error.strerror or error}") from None
        self._end += len(data)
        self._note(question.line, question.hash)

    def _note(self, line: int, hash_: str) -> None:
        byte, bit = divmod(line, 8)
        self._done.extend(bytes(max(byte + 1 - len(self._done), 0)))
        self._done[byte] |= 1 << bit
        self._checksum.add(line, hash_)
        self.count += 1

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            busy = isinstance(error, BlockingIOError)
            raise self._refuse("another process writes to it" if busy else f"no lock: {error.strerror}") from None

    def _read(self, most_lines: int) -> int:
        """Read the answers, and return the offset at which the last whole line ends."""
        end = 0
        with open(self._file, "rb", closefd=False) as file:
            for number, data in enumerate(file, start=1):
                torn = not data.endswith(b"\n")
                # Anything else is no torn answer but another file, named by mistake.
                if torn and (data.startswith(_BEGINNING) or _BEGINNING.startswith(data)):
                    break
                line, hash_ = (None, None) if torn else _read_line(data)
                if line is None or hash_ is None:
                    raise self._refuse(f"line {number} is not an answer that `ctxcache map` wrote")
                if line in self or line > most_lines:
                    problem = "a second time" if line in self else "which does not exist: was it removed?"
                    raise self._refuse(f"line {number} answers the question of line {line} {problem}")
                self._note(line, hash_)
                end += len(data)
        return end

    def _refuse(self, problem: str) -> CtxCacheError:
        return InvalidInputError(f"{self.name}: {problem}", field="out")


def _line(question: NumberedQuestion, answer: ChatCompletion) -> bytes:
    fields = {
        "line": question.line,
        "id": question.id,
        "question_hash": question.hash,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": None if answer.usage is None else usage_json(answer.usage),
        "request_id": answer.request_id,
    }
    given = {name: value for name, value in fields.items() if value is not UNSET}
    # A lone surrogate becomes \udc00, which is valid JSON.
    return (json.dumps(given, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _read_line(data: bytes) -> tuple[int | None, str | None]:
    try:
        fields = json.loads(data)
        line, hash_ = fields["line"], fields["question_hash"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None, None
    good = isinstance(line, int) and not isinstance(line, bool) and line > 0 and isinstance(hash_, str)
    return (line, hash_) if good else (None, None)
