"""The check of all questions, before anything is sent."""

import json
from typing import Final

from ...config import UNSET
from ...errors import InvalidInputError
from .journal import Journal
from .questions import Id, NumberedQuestion, Questions

__all__ = ["BadQuestionsError", "count_questions"]

_LISTED: Final = 20


class BadQuestionsError(InvalidInputError):
    """Some lines are not questions.

    Attributes:
        problems: a message for each of the first 20.
        count: number of bad lines.
    """

    problems: tuple[str, ...] = ()
    count: int = 0


def count_questions(questions: Questions, journal: Journal) -> int:
    """Read all questions, compare the answered ones, and return their number.

    Raises:
        BadQuestionsError: a line is not a question, or repeats an id.
        InvalidInputError: an answered question was changed or removed.
    """
    problems = _Problems()
    total = found = 0
    changed = ""
    lines: dict[Id, int] = {}
    for question in questions:
        if isinstance(question, InvalidInputError):
            problems.add(question.message)
        elif (first := _first_line(question, lines)) != question.line:
            same = f"line {first} has the same id, {json.dumps(question.id, ensure_ascii=False)}"
            problems.add(f"{questions.name}, line {question.line}: {same}")
        else:
            total += 1
            if question in journal.answered:
                found += 1
                changed = changed or ("" if journal.answered.is_unchanged(question) else question.place)
    problems.raise_if_any(questions.name)
    if changed:
        raise journal.refuse_change(f"different questions ({changed} was changed)")
    gone = journal.answered.count - found
    if gone:
        raise journal.refuse_change(f"different questions ({gone:,} {'was' if gone == 1 else 'were'} removed or moved)")
    return total


def _first_line(question: NumberedQuestion, lines: dict[Id, int]) -> int:
    """Return the first line with the id of a question, or the line of a question without an id."""
    return question.line if question.id is UNSET else lines.setdefault(question.id, question.line)


class _Problems:
    """Counts bad lines, and keeps the messages of the first."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._count = 0

    def add(self, problem: str) -> None:
        self._count += 1
        if self._count <= _LISTED:
            self._first.append(problem)

    def raise_if_any(self, name: str) -> None:
        if self._count:
            message = f"{name}: {self._count:,} bad lines"
            raise BadQuestionsError(message, problems=tuple(self._first), count=self._count)
