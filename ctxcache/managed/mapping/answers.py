"""The answers of a map, and the order in which they are delivered. Pure."""

import json
from typing import Any, Generic, TypeVar

import attrs

from ...errors import CtxCacheError
from ...models import ChatCompletion, Usage
from ...models.plain import to_plain

__all__ = ["Answer", "Answers"]

QuestionT = TypeVar("QuestionT")


@attrs.frozen
class Answer(Generic[QuestionT]):
    """The result of one question: a completion or an error.

    Attributes:
        index: the question's place among all, from 0.
        question: as given.
        completion: the answer, or None.
        error: the final error, or None.
    """

    index: int
    question: QuestionT = attrs.field(repr=False)  # content does not show in logs
    completion: ChatCompletion | None = attrs.field(default=None, repr=False)
    error: CtxCacheError | None = None

    @property
    def ok(self) -> bool:
        """Whether the question was answered."""
        return self.error is None

    @property
    def text(self) -> str:
        """The text of the answer.

        Raises:
            CtxCacheError: the question failed.
        """
        if self.error is not None:
            raise self.error
        return "" if self.completion is None else self.completion.text

    @property
    def usage(self) -> Usage | None:
        """The usage of the answer; None after an error, or if the service sent none."""
        return None if self.completion is None else self.completion.usage

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON data: `index`, `question`, and `completion` or `error`, the other None."""
        completion = None if self.completion is None else self.completion.to_dict()
        error = None if self.error is None else self.error.to_dict()
        return {"index": self.index, "question": to_plain(self.question), "completion": completion, "error": error}

    def to_json(self) -> str:
        """Return `to_dict()` as JSON; an object within the question that JSON cannot carry is written by `str`."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), default=str)


class Answers(Generic[QuestionT]):
    """Keeps answers until the reader fetches them.

    Args:
        ordered: deliver in the order of the questions; otherwise in the order of completion.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._waiting: dict[int, Answer[QuestionT]] = {}  # by place in the order of delivery
        self._completed = 0
        self._next = 0

    def put(self, answer: Answer[QuestionT]) -> None:
        """Keep an answer."""
        self._waiting[answer.index if self._ordered else self._completed] = answer
        self._completed += 1

    def take(self) -> Answer[QuestionT] | None:
        """Return the next answer in order, None if it is not there yet."""
        answer = self._waiting.pop(self._next, None)
        if answer is not None:
            self._next += 1
        return answer
