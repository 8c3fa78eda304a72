"""The questions of a map: where they come from, and what is known of each on its way."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from inspect import isasyncgen, isgenerator
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["Job", "Source"]

Question = TypeVar("Question")

_END: Final = object()


@attrs.define(eq=False)
class Job(Generic[Question]):
    """A question on its way.

    Attributes:
        index: its place among the questions, from 0.
        question: as it was given.
        tried: the attempts so far.
        failures: those that count against `Retry.attempts`, which 429s do not.
        failing_since: when the first of those began, by the map's clock.
    """

    index: int
    question: Question
    tried: int = 0
    failures: int = 0
    failing_since: float = 0.0


class Source(Generic[Question]):
    """Reads an iterable or an async iterable, one question at a time."""

    def __init__(self, questions: Iterable[Question] | AsyncIterable[Question]) -> None:
        self._questions = questions
        self._iterator: Iterator[Question] | AsyncIterator[Question] | None = None
        self._taken = 0

    async def next(self) -> Job[Question] | None:
        """Return the next question, None at the end. What the iterable raises is raised."""
        if self._iterator is None:
            given = self._questions
            self._iterator = aiter(given) if isinstance(given, AsyncIterable) else iter(given)
        if isinstance(self._iterator, AsyncIterator):
            question = await anext(self._iterator, _END)
        else:
            question = next(self._iterator, _END)
        if question is _END:
            return None
        self._taken += 1
        return Job(self._taken - 1, question)  # type: ignore[arg-type]  # not the sentinel

    async def aclose(self) -> None:
        """Close what is a generator; files and other things are their owner's. What its `finally` raises is raised."""
        open_end = self._questions if self._iterator is None else self._iterator
        if isasyncgen(open_end):
            await open_end.aclose()
        elif isgenerator(open_end):
            open_end.close()
