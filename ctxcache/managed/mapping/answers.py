"""The answers of a map, and the order in which they leave it."""

from typing import Generic, TypeVar

import attrs

from ...errors import CtxCacheError
from ...models import ChatCompletion, Usage

__all__ = ["Answer", "Answers"]

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


class Answers(Generic[Question]):
    """Keeps the answers that nobody has fetched yet.

    Args:
        ordered: give them out in the order of the questions; otherwise as they came.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._waiting: dict[int, Answer[Question]] = {}  # by their place in the order
        self._came = 0
        self._next = 0

    def put(self, answer: Answer[Question]) -> None:
        """Keep one."""
        self._waiting[answer.index if self._ordered else self._came] = answer
        self._came += 1

    def take(self) -> Answer[Question] | None:
        """Give out the next one, if it is there."""
        answer = self._waiting.pop(self._next, None)
        if answer is not None:
            self._next += 1
        return answer
