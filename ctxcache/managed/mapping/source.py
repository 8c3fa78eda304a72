"""The questions of a map: `Source` reads them, and a `Job` is one question on its way."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from inspect import isasyncgen, isgenerator
from typing import Generic, TypeVar

import attrs

__all__ = ["Job", "Source"]

QuestionT = TypeVar("QuestionT")


@attrs.define(eq=False)
class Job(Generic[QuestionT]):
    """A question on its way.

    Attributes:
        index: the place among the questions, from 0.
        question: as given.
        attempts: the attempts so far.
        failures: the attempts that count against `Retry.attempts`, which 429s do not.
        failing_since: when the first of those began, by the map's clock.
    """

    index: int
    question: QuestionT
    attempts: int = 0
    failures: int = 0
    failing_since: float = 0.0


class Source(Generic[QuestionT]):
    """Reads an iterable or an async iterable, one question at a time."""

    def __init__(self, questions: Iterable[QuestionT] | AsyncIterable[QuestionT]) -> None:
        self._questions = questions
        self._iterator: Iterator[QuestionT] | AsyncIterator[QuestionT] | None = None
        self._taken = 0

    async def next(self) -> Job[QuestionT] | None:
        """Return the next question, None at the end. Errors of the iterable are raised."""
        if self._iterator is None:
            given = self._questions
            self._iterator = aiter(given) if isinstance(given, AsyncIterable) else iter(given)
        try:
            if isinstance(self._iterator, AsyncIterator):
                question = await anext(self._iterator)
            else:
                question = next(self._iterator)
        except (StopIteration, StopAsyncIteration):
            return None
        self._taken += 1
        return Job(self._taken - 1, question)

    async def aclose(self) -> None:
        """Close a generator; files and other iterables belong to the caller. Errors of its `finally` are raised."""
        open_end = self._questions if self._iterator is None else self._iterator
        if isasyncgen(open_end):
            await open_end.aclose()
        elif isgenerator(open_end):
            open_end.close()
