"""The merge of a batch's shards: one file of answers, in the order of the questions.

The shards are read without their locks, since a merge must not stop a shard that starts meanwhile: whole lines never
change, and lines that a running shard appends later are left out. The creates of all contexts go to the first line, so
that the bill can be made from the merged file, too. Of each answer only a hash and an offset are kept.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from enum import Enum
from typing import IO, Any, Final

from ...errors import InvalidInputError
from .answered import Answered, Numbers
from .books import Books
from .check import Comparison, good_questions
from .files import allow_open_files, is_locked, open_locked, refuse, refuse_change, replacing, written_shards
from .lines import encode, read_answers
from .questions import NumberedQuestion, Questions
from .settings import Settings
from .shards import Shard, shard_of

__all__ = ["Merge", "ShardAnswers", "State"]

_LISTED: Final = 5


class State(Enum):
    """The state of a shard.

    `COMPLETE` has all answers. Of the others, `RUNNING` is written by a process, `UNFINISHED` is not, `LOST` has no
    file, and the file of `REFUSED` cannot be used.
    """

    COMPLETE = "complete"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    LOST = "lost"
    REFUSED = "refused"


class ShardAnswers:
    """The answers of a shard.

    Args:
        shard: the shard.
        out: name of the merged file.
        settings: of the batch; the answers must share them.
        most_lines: highest possible line number of a question.

    Attributes:
        shard: the shard.
        name: of the file.
        problem: why the file cannot be used, or "".
        is_torn: whether the last line is a part of an answer.
        places: the first questions without an answer.
        creates: creates of contexts, as in the file.
    """

    def __init__(self, shard: Shard, out: str, settings: Settings, most_lines: int) -> None:
        self.shard = shard
        self.name = shard.file(out)
        self.problem = ""
        self.is_torn = False
        self.places: list[str] = []
        self.creates: list[Mapping[str, Any]] = []
        self._answered = Answered()
        self._comparison = Comparison(self._answered)
        self._offsets = Numbers()  # plus 1
        self._is_running = False
        self._file = self._open()
        if self._file is not None:
            self._is_running = is_locked(self._file)
            try:
                self._read(self._file, settings, most_lines)
            except InvalidInputError as error:
                self.problem = error.message

    @property
    def questions(self) -> int:
        """Number of questions."""
        return self._comparison.total

    @property
    def answers(self) -> int:
        """Number of answers that can be used."""
        return 0 if self.problem else self._comparison.found

    @property
    def missing(self) -> int:
        """Number of questions without an answer."""
        return self.questions - self.answers

    @property
    def state(self) -> State:
        """The state."""
        if self.problem:
            return State.REFUSED
        if not self.missing:
            return State.COMPLETE
        if self._is_running:
            return State.RUNNING
        return State.LOST if self._file is None else State.UNFINISHED

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, question: NumberedQuestion) -> int:
        """Count a question of the shard; return where its answer's line begins, or -1."""
        if self._comparison.add(question):
            return self._offsets.find(question) - 1
        if len(self.places) < _LISTED:
            self.places.append(question.place)
        return -1

    def compare(self) -> None:
        """After all questions: refuse the file if answers belong to other questions."""
        if not self.problem and self._comparison.change:
            self.problem = f"{self.name}: was written for {self._comparison.change}"

    def has(self, question: NumberedQuestion) -> bool:
        """Whether a question has an answer that can be used."""
        return not self.problem and question in self._answered

    def line(self, offset: int) -> bytes:
        """Return the line that begins at an offset."""
        assert self._file is not None  # noqa: S101  # there is a line
        self._file.seek(offset)
        return self._file.readline()

    def _open(self) -> IO[bytes] | None:
        try:
            return open(self.name, "rb")  # closed by `close`
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"{self.name}: {error.strerror or error}"
            return None

    def _read(self, file: IO[bytes], settings: Settings, most_lines: int) -> None:
        end = 0
        for line in read_answers(file, self.name, self._answered, settings, most_lines):
            self._offsets.add(line.line, line.id, line.start + 1)
            self.creates += _creates(line.fields)
            end = line.end
        self.is_torn = not self._is_running and file.seek(0, 2) > end


class Merge:
    """The shards of a batch.

    Args:
        out: name of the merged file.
        settings: of the batch.
        questions: all questions of the batch.

    Attributes:
        name: of the merged file.
        shards: the answers of each shard, in order.
        books: usage and cost of the answers, once they were read by `write` or `add_up`.

    Raises:
        InvalidInputError: there are no shards, or shards of several counts, or bad questions, or the merged file has
            answers that no shard has.
    """

    def __init__(self, out: str, settings: Settings, questions: Questions) -> None:
        self.name = out
        self.books = Books()
        self._questions = questions
        self._settings = settings
        self._most_lines = questions.size + 1
        count = _count(out)
        allow_open_files(count)
        self.shards: list[ShardAnswers] = []
        # Of the answers, in the order of the questions: the shard, and where the line begins.
        self._order = array("l")
        self._offsets = array("q")
        try:
            for index in range(count):
                self.shards.append(ShardAnswers(Shard(index, count), out, settings, self._most_lines))
            self._compare()
        except BaseException:
            self.close()
            raise

    @property
    def questions(self) -> int:
        """Number of questions."""
        return sum(shard.questions for shard in self.shards)

    @property
    def missing(self) -> int:
        """Number of questions without an answer."""
        return sum(shard.missing for shard in self.shards)

    @property
    def is_complete(self) -> bool:
        """Whether all questions have an answer."""
        return all(shard.state is State.COMPLETE for shard in self.shards)

    def close(self) -> None:
        """Close the files."""
        for shard in self.shards:
            shard.close()

    def add_up(self) -> None:
        """Fill the books, and write nothing."""
        for fields in map(json.loads, self._lines()):
            self.books.enter_line(fields)

    def write(self) -> None:
        """Write the merged file, which replaces an older one at once, and fill the books.

        Raises:
            InvalidInputError: the file cannot be written, or has answers that no shard has.
        """
        with ExitStack() as stack:
            self._check_older(stack)
            writer = stack.enter_context(replacing(self.name))
            for data in self._lines():
                self.books.enter_line(json.loads(data))
                writer.write(data)

    def _compare(self) -> None:
        for question in good_questions(self._questions):
            index = shard_of(question.id, question.number, len(self.shards))
            offset = self.shards[index].add(question)
            if offset >= 0:
                self._order.append(index)
                self._offsets.append(offset)
        for shard in self.shards:
            shard.compare()

    def _lines(self) -> Iterator[bytes]:
        """Yield the answers' lines in the order of the questions; the first has all creates, in order of time."""
        creates = sorted((create for shard in self.shards if not shard.problem for create in shard.creates), key=_time)
        for index, offset in zip(self._order, self._offsets, strict=True):
            if self.shards[index].problem:
                continue
            data = self.shards[index].line(offset)
            if creates or b'"created"' in data:
                data = _with_creates(data, creates)
                creates = []
            yield data

    def _check_older(self, stack: ExitStack) -> None:
        """Lock an existing merged file until the end of `stack`, and check that no answer in the file would be lost."""
        if not os.path.exists(self.name):
            return
        file = stack.enter_context(os.fdopen(open_locked(self.name), "rb"))
        answered = Answered()
        for _ in read_answers(file, self.name, answered, self._settings, self._most_lines):
            pass
        comparison = Comparison(answered)
        lost = sum(comparison.add(question) and not self._has(question) for question in good_questions(self._questions))
        if comparison.change:
            raise refuse_change(self.name, comparison.change)
        if lost:
            raise refuse(self.name, f"{lost:,} answers are in no shard: rename the file, or give another --out")

    def _has(self, question: NumberedQuestion) -> bool:
        return self.shards[shard_of(question.id, question.number, len(self.shards))].has(question)


def _count(out: str) -> int:
    """Return the number of shards, from the names of the files."""
    shards = written_shards(out)
    if not shards:
        raise refuse(out, f"there are no shards to merge: no file {Shard(0, 1).file(out).replace('0-of-1', 'I-of-N')}")
    first, last = shards[0], shards[-1]
    if first.count != last.count:
        files = f"{first.file(out)} and {last.file(out)}"
        raise refuse(out, f"there are shards of different counts, {files}: remove those of one count")
    return first.count


def _creates(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    created = fields.get("created")
    return [create for create in created if isinstance(create, dict)] if isinstance(created, list) else []


def _time(create: Mapping[str, Any]) -> float:
    time = create.get("time")
    return time if isinstance(time, int | float) else 0


def _with_creates(data: bytes, creates: list[Mapping[str, Any]]) -> bytes:
    fields = json.loads(data)
    fields.pop("created", None)
    if creates:
        fields["created"] = creates
    return encode(fields)
