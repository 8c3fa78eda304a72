"""The check of all questions, before anything is sent."""

import json
from collections.abc import Iterator
from typing import Final

from ...config import UNSET
from ...errors import InvalidInputError
from .answered import Answered
from .journal import Journal
from .questions import Id, NumberedQuestion, Questions

__all__ = ["BadQuestionsError", "Comparison", "count_questions", "good_questions"]

_LISTED: Final = 20


class BadQuestionsError(InvalidInputError):
    """Some lines are not questions.

    Attributes:
        problems: a message for each of the first 20.
        count: number of bad lines.
    """

    problems: tuple[str, ...] = ()
    count: int = 0


def good_questions(questions: Questions) -> Iterator[NumberedQuestion]:
    """Read all questions; after the last, raise an error if there were bad lines between.

    Raises:
        BadQuestionsError: a line is not a question, or repeats an id.
    """
    problems = _Problems()
    lines: dict[Id, int] = {}
    for question in questions:
        if isinstance(question, InvalidInputError):
            problems.add(question.message)
        elif (first := _first_line(question, lines)) != question.line:
            same = f"line {first} has the same id, {json.dumps(question.id, ensure_ascii=False)}"
            problems.add(f"{questions.name}, line {question.line}: {same}")
        else:
            yield question
    problems.raise_if_any(questions.name)


class Comparison:
    """Counts questions, and compares the answered ones with their answers.

    Attributes:
        total: number of questions.
        found: number of answered questions.
    """

    def __init__(self, answered: Answered) -> None:
        self.total = self.found = 0
        self._answered = answered
        self._changed = ""

    def add(self, question: NumberedQuestion) -> bool:
        """Count a question; return whether the question has an answer."""
        self.total += 1
        has_answer = question in self._answered
        if has_answer:
            self.found += 1
            if not self._changed and not self._answered.is_unchanged(question):
                self._changed = question.place
        return has_answer

    @property
    def change(self) -> str:
        """After all questions: what differs from the questions that were answered, in words; "" if nothing does."""
        if self._changed:
            return f"different questions ({self._changed} was changed)"
        gone = self._answered.count - self.found
        return f"different questions ({gone:,} {'was' if gone == 1 else 'were'} removed or moved)" if gone else ""


def count_questions(questions: Questions, journal: Journal) -> int:
    """Read all questions, compare the answered ones, and return the number of those in the shard.

    Raises:
        BadQuestionsError: a line is not a question, or repeats an id.
        InvalidInputError: an answered question was changed or removed.
    """
    comparison = Comparison(journal.answered)
    for question in good_questions(questions):
        if questions.has(question):
            comparison.add(question)
    if comparison.change:
        raise journal.refuse_change(comparison.change)
    return comparison.total


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
