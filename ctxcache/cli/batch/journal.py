"""The answers of `ctxcache map`, in a file: a process may be killed at any moment, and the next one goes on.

Each line is appended by one system call, by the one process that holds the lock. So a kill can leave only a part of the
last line, without its line end; a power cut may leave zeros instead. The next start cuts that off. The questions
themselves are not kept: see `answered`. Reading and writing take time in proportion to the number of answers.
"""

import itertools
import json
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Final

from ...config import UNSET
from ...errors import InvalidInputError
from ...models import ChatCompletion, Context
from ..terminal import Output
from ..usage import usage_json
from .answered import Answered
from .books import Books
from .files import open_locked, refuse, refuse_change
from .lines import BEGINNING, FOREIGN, encode, is_torn, read_answers
from .questions import NumberedQuestion
from .settings import Settings

__all__ = ["FileJournal", "Journal", "StreamJournal", "WriteError"]

_DEFAULT_TTL: Final = 86400


class WriteError(Exception):
    """An answer cannot be written. Outside the package's family of errors, so that the map ends."""


class Journal(ABC):
    """The answers so far, and a place for the next.

    Args:
        name: of the place, for messages.
        settings: of the batch; the answers must share them.
        with_questions: whether lines repeat their question.

    Attributes:
        name: of the place.
        answered: the questions with an answer.
        books: usage and cost of the answers.
    """

    def __init__(self, name: str, settings: Settings, *, with_questions: bool = False) -> None:
        self.name = name
        self.answered = Answered()
        self.books = Books()
        self._settings = settings
        self._with_questions = with_questions
        self._creates: list[dict[str, Any]] = []  # not written yet

    def close(self) -> None:  # noqa: B027  # stdout stays open
        """Close the place."""

    def begin(self) -> str:
        """Make the place ready for writing, once all checks have passed; return a remark for the user, or ""."""
        return ""

    def refuse(self, problem: str) -> InvalidInputError:
        """Return the error for a place that cannot be used."""
        return refuse(self.name, problem)

    def refuse_change(self, change: str) -> InvalidInputError:
        """Return the error for answers that belong to other questions or settings."""
        return refuse_change(self.name, change)

    def note_create(self, context: Context, at: float) -> None:
        """Note that a context was created; the next line will have it."""
        ttl = context.ttl or _DEFAULT_TTL
        self.books.created(context.id, context.usage, at, ttl)
        usage = None if context.usage is None else usage_json(context.usage)
        self._creates.append({"context_id": context.id, "time": int(at), "ttl": ttl, "usage": usage})

    def write(self, question: NumberedQuestion, answer: ChatCompletion, context_id: str | None, at: float) -> None:
        """Append an answer.

        Args:
            question: the question.
            answer: the answer.
            context_id: the context that answered, if known.
            at: the time, in Unix seconds.

        Raises:
            WriteError: the line could not be written; earlier lines are whole.
        """
        self._append(self._fields(question, answer) | {"context_id": context_id, "time": int(at)} | self._created())
        self._creates.clear()
        self.answered.add(question.line, question.id, question.hash)
        self.books.answered(context_id, answer.usage, at)

    @abstractmethod
    def _append(self, fields: dict[str, Any]) -> None:
        """Append a line."""

    def _created(self) -> dict[str, Any]:
        return {"created": self._creates} if self._creates else {}

    def _fields(self, question: NumberedQuestion, answer: ChatCompletion) -> dict[str, Any]:
        fields = {
            "line": question.line,
            "id": question.id,
            **(question.content if self._with_questions else {}),
            "question_hash": question.hash,
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "usage": None if answer.usage is None else usage_json(answer.usage),
            "request_id": answer.request_id,
            **self._settings.fields(),
        }
        return {name: value for name, value in fields.items() if value is not UNSET}


class StreamJournal(Journal):
    """Writes answers to stdout. Nothing can be read back, so every start begins anew."""

    def __init__(self, out: Output, settings: Settings, *, with_questions: bool = False) -> None:
        super().__init__("stdout", settings, with_questions=with_questions)
        if sys.stdout is None:
            raise self.refuse("closed")
        self._out = out

    def _append(self, fields: dict[str, Any]) -> None:
        self._out.line(json.dumps(fields))  # in ASCII, whatever the locale


class FileJournal(Journal):
    """Keeps answers in a file, under a lock.

    Args:
        name: of the file, which is created if missing.
        settings, with_questions: as in `Journal`.
        most_lines: highest possible line number of a question.
        fresh: whether to begin a new file; the old one is kept under another name.

    Raises:
        InvalidInputError: the file cannot be opened, is written by another process, holds anything but answers, or was
            written with other settings.
    """

    def __init__(
        self, name: str, settings: Settings, *, most_lines: int, fresh: bool = False, with_questions: bool = False
    ) -> None:
        super().__init__(name, settings, with_questions=with_questions)
        self._fresh = fresh
        self._end = 0
        self._file = open_locked(self.name)
        try:
            if fresh:
                self._look()
            else:
                self._end = self._read(most_lines)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close and unlock the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def begin(self) -> str:
        """Cut off a torn last line, or set the old file aside."""
        if os.fstat(self._file).st_size <= self._end:
            return ""
        if self._fresh:
            return f"{self.name} is now {self._set_aside()}"
        os.ftruncate(self._file, self._end)
        return ""

    def _set_aside(self) -> str:
        """Rename the file to the first free name, and open a new one; the lock on the old file is held meanwhile."""
        names = (f"{self.name}.{number}" for number in itertools.count(1))
        name = next(name for name in names if not os.path.lexists(name))
        try:
            os.rename(self.name, name)
        except OSError as error:
            raise self.refuse(error.strerror or str(error)) from None
        old, self._file = self._file, -1
        try:
            self._file = open_locked(self.name)
        finally:
            os.close(old)
        return name

    def _look(self) -> None:
        """Check that the file begins with an answer: no other file is set aside."""
        os.lseek(self._file, 0, os.SEEK_SET)
        if not is_torn(os.read(self._file, len(BEGINNING))):
            raise self.refuse(f"line 1 is {FOREIGN}")

    def _read(self, most_lines: int) -> int:
        """Read the answers, and return the offset at which the last whole line ends."""
        end = 0
        with open(self._file, "rb", closefd=False) as file:
            for line in read_answers(file, self.name, self.answered, self._settings, most_lines):
                self.books.enter_line(line.fields)
                end = line.end
        return end

    def _append(self, fields: dict[str, Any]) -> None:
        data = encode(fields)
        try:
            written = os.write(self._file, data)
            while written < len(data):  # probably a full disk: the next write raises
                written += os.write(self._file, data[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise WriteError(f"{self.name}: {error.strerror or error}") from None
        self._end += len(data)
