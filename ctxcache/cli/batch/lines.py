"""The lines of a file of answers, read one by one and checked.

A kill can leave only a part of the last line, without its line end; a power cut may leave zeros instead. Reading ends
before such a torn line. Anything else that is not an answer is refused: the file was named by mistake, or damaged.
"""

import json
from collections.abc import Iterator
from typing import IO, Any, Final

import attrs

from ...config import UNSET
from .answered import Answered
from .files import refuse, refuse_change
from .questions import Id
from .settings import Settings

__all__ = ["BEGINNING", "FOREIGN", "AnswerLine", "encode", "is_torn", "read_answers"]

BEGINNING: Final = b'{"line": '  # of every line
FOREIGN: Final = "not an answer that `ctxcache map` wrote"
_DAMAGED: Final = "damaged (zero bytes, as after a power cut): delete the line to ask the question again"


@attrs.frozen
class AnswerLine:
    """An answer in a file.

    Attributes:
        start: offset of the line.
        end: offset after the line.
        fields: the answer.
    """

    start: int
    end: int
    fields: dict[str, Any]

    @property
    def line(self) -> int:
        """Line of the question."""
        return int(self.fields["line"])

    @property
    def id(self) -> Id | Any:
        """Id of the question, or UNSET."""
        return self.fields.get("id", UNSET)


def read_answers(
    file: IO[bytes], name: str, answered: Answered, settings: Settings, most_lines: int
) -> Iterator[AnswerLine]:
    """Read the answers up to the torn last line, if there is one.

    Args:
        file: the file, at the beginning.
        name: of the file, for messages.
        answered: gets the questions.
        settings: of the batch; the answers must share them.
        most_lines: highest possible line number of a question.

    Raises:
        InvalidInputError: a line is not an answer, or answers a question again; after the last line, if the answers
            were written with other settings.
    """
    start, change = 0, ""
    for number, data in enumerate(file, start=1):
        if not data.endswith(b"\n") and is_torn(data):
            break
        fields = _read(data)
        if fields is None:
            raise refuse(name, f"line {number} is {_DAMAGED if _is_damaged(data) else FOREIGN}")
        line = AnswerLine(start, start + len(data), fields)
        problem = _enter(answered, line, most_lines)
        if problem:
            raise refuse(name, f"line {number} answers {problem}")
        change = change or settings.difference(fields)
        yield line
        start = line.end
    if change:
        raise refuse_change(name, change)


def encode(fields: dict[str, Any]) -> bytes:
    """Return an answer as a line."""
    # A lone surrogate becomes \udc00, which is valid JSON.
    return (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _enter(answered: Answered, line: AnswerLine, most_lines: int) -> str:
    """Enter the question; return what is wrong with it, or ""."""
    unnamed = line.id is UNSET
    question = f"the question of line {line.line}" if unnamed else f"the question with id {json.dumps(line.id)}"
    if unnamed and line.line > most_lines:
        return f"{question}, which does not exist: was it removed?"
    return "" if answered.add(line.line, line.id, line.fields["question_hash"]) else f"{question} a second time"


def is_torn(data: bytes) -> bool:
    """Whether a last line without line end is the beginning of an answer. Anything else is a file named by mistake."""
    written = data.rstrip(b"\0")
    return written.startswith(BEGINNING) or BEGINNING.startswith(written)


def _is_damaged(data: bytes) -> bool:
    return data.startswith((BEGINNING, b"\0")) and b"\0" in data


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not data.endswith(b"\n") or not isinstance(fields, dict):
        return None
    line, hash_, id_ = fields.get("line"), fields.get("question_hash"), fields.get("id", "")
    good = type(line) is int and line > 0 and isinstance(hash_, str) and hash_.isascii()
    return fields if good and type(id_) in (str, int, float) else None
