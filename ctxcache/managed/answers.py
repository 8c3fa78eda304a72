"""The answers of a map, and the order in which they leave it."""

from collections import deque
from typing import Generic, Protocol, TypeVar

import attrs

from ..errors import CtxCacheError
from ..models import ChatCompletion, Usage

__all__ = ["Answer", "AsTheyCome", "InOrder", "Order"]

Question = TypeVar("Question")


@attrs.frozen
class Answer(Generic[Question]):
    """What became of one question: a completion or an error.

    Attributes:
        index: its place among the questions, from 0.
        question: as it was given.
        completion: the answer, or None.
        error: what it failed with in the end, or None.
    """

    index: int
    question: Question = attrs.field(repr=False)  # neither content shows in logs
    completion: ChatCompletion | None = attrs.field(default=None, repr=False)
    error: CtxCacheError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.error is None

    @property
    def text(self) -> str:
        """The text of the answer.

        Raises:
            CtxCacheError: what the question failed with.
        """
        if self.error is not None:
            raise self.error
        return "" if self.completion is None else self.completion.text

    @property
    def usage(self) -> Usage | None:
        """What it was counted at; None if it failed, or the service did not say."""
        return None if self.completion is None else self.completion.usage


class Order(Protocol[Question]):
    """Keeps the answers that nobody has fetched yet."""

    def put(self, answer: Answer[Question]) -> None:
        """Keep one."""
        ...

    def take(self) -> Answer[Question] | None:
        """Give out the next, if it is there."""
        ...


class AsTheyCome(Generic[Question]):
    """First come, first out."""

    def __init__(self) -> None:
        self._answers: deque[Answer[Question]] = deque()

    def put(self, answer: Answer[Question]) -> None:
        """Keep one."""
        self._answers.append(answer)

    def take(self) -> Answer[Question] | None:
        """Give out the oldest."""
        return self._answers.popleft() if self._answers else None


class InOrder(Generic[Question]):
    """In the order of the questions."""

    def __init__(self) -> None:
        self._answers: dict[int, Answer[Question]] = {}
        self._next = 0

    def put(self, answer: Answer[Question]) -> None:
        """Keep one."""
        self._answers[answer.index] = answer

    def take(self) -> Answer[Question] | None:
        """Give out the next in line."""
        answer = self._answers.pop(self._next, None)
        if answer is not None:
            self._next += 1
        return answer
