"""Which questions have an answer. Pure.

A question with an id is known by the id and may move; any other question is known by the line. A question that got an
id after the answer is still found by the line. Of each answered question only a hash is kept: 8 bytes a line, or a dict
entry for an id.
"""

from array import array
from typing import Final

from ...config import UNSET, Unset
from .questions import Id, NumberedQuestion

__all__ = ["Answered", "Numbers"]

_NONE: Final = 0


class Numbers:
    """A number for each question, never 0."""

    def __init__(self) -> None:
        self._by_line = array("q")
        self._by_id: dict[Id, int] = {}

    def add(self, line: int, id_: Id | Unset, number: int) -> bool:
        """Give a question its number; return False if that line or id has a number."""
        if id_ is UNSET:
            self._by_line.extend([_NONE] * (line + 1 - len(self._by_line)))
            if self._by_line[line]:
                return False
            self._by_line[line] = number
        else:
            if id_ in self._by_id:
                return False
            self._by_id[id_] = number
        return True

    def find(self, question: NumberedQuestion) -> int:
        """Return the number of a question, or 0."""
        found = _NONE if question.id is UNSET else self._by_id.get(question.id, _NONE)
        if found == _NONE and question.line < len(self._by_line):
            return self._by_line[question.line]
        return found


class Answered:
    """The answered questions.

    Attributes:
        count: number of answered questions.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hashes = Numbers()

    def add(self, line: int, id_: Id | Unset, hash_: str) -> bool:
        """Add a question; return False if that line or id was added before."""
        is_new = self._hashes.add(line, id_, _number(hash_))
        self.count += is_new
        return is_new

    def __contains__(self, question: NumberedQuestion) -> bool:
        return self._hashes.find(question) != _NONE

    def is_unchanged(self, question: NumberedQuestion) -> bool:
        """Whether an answered question has not changed since the answer."""
        return self._hashes.find(question) == _number(question.hash)


def _number(hash_: str) -> int:
    return hash(hash_) or 1
