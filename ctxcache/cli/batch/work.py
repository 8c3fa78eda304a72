"""One start of a batch: asks the questions without an answer, and counts."""

import asyncio
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...config import Retry
from ...errors import ContextGoneError, CtxCacheError, QuotaExceededError
from ...models import ChatCompletion, Usage
from ..failures import HOPELESS
from ..terminal import Terminal
from .journal import Journal, WriteError
from .progress import Progress, show_progress
from .questions import NumberedQuestion, read_questions

if TYPE_CHECKING:
    from ...managed import Answer, Prefix

__all__ = ["Work"]

_LISTED: Final = 20
_IN_A_ROW: Final = 100  # failures without a success between, after which the batch gives up


class Work:
    """One start of a batch.

    Args:
        prefix: answers the questions.
        journal: the answers so far; gets the new ones.
        questions: name of the file of questions.
        sampling: options of every question.

    Attributes:
        journal: the answers.
        usage: of all calls of this start, creates included.
        before: number of answers before this start.
        total: number of questions to ask.
        failed: number of questions that failed.
        failures: the last of those, by line.
        stopped: why the remaining questions were not asked, or "".

    Raises:
        InvalidInputError: a line is not a question, or the answers are for different questions.
    """

    def __init__(self, prefix: "Prefix", journal: Journal, questions: str, sampling: dict[str, Any]) -> None:
        self.journal = journal
        self.before = journal.count
        self.failed = 0
        self.failures: deque[tuple[int, CtxCacheError]] = deque(maxlen=_LISTED)
        self.stopped = ""
        self._prefix = prefix
        self._sampling = sampling
        self._read = partial(read_questions, questions)
        self.total = journal.check(self._read) - journal.count
        self._failed_in_a_row = 0
        self._answered = 0
        self._answers_usage = Usage()

    @property
    def usage(self) -> Usage:
        """Usage of all calls of this start, creates included."""
        return self._prefix.usage

    @property
    def progress(self) -> str:
        """How many questions have an answer."""
        return f"{self.journal.count:,} of {self.before + self.total:,} answers in {self.journal.name}"

    async def do(self, terminal: Terminal, *, concurrency: int, retry: Retry) -> None:
        """Ask the questions without an answer.

        Raises:
            CtxCacheError: the context cannot be created, or an answer cannot be written.
        """
        from ...managed import Map

        try:
            await self._prefix.warm()
            with show_progress(terminal, self.total) as progress:
                async with Map(self._ask, self._open(), concurrency=concurrency, retry=retry) as answers:
                    async for answer in answers:
                        self._note(answer, progress)
        except asyncio.CancelledError:
            terminal.note(f"stopped with {self.progress}; start again for the rest")
            raise
        except WriteError as error:
            raise CtxCacheError(str(error)) from None

    def _open(self) -> Iterator[NumberedQuestion]:
        """Yield the questions without an answer, until the batch is stopped."""
        for question in self._read():
            if self.stopped:
                return
            if question.line not in self.journal:
                yield question

    async def _ask(self, question: NumberedQuestion, /, *, retry: Retry) -> ChatCompletion:
        answer = await self._prefix.ask(question.messages, retry=retry, **self._sampling)
        self.journal.write(question, answer)  # at once, so that Ctrl-C loses no answer
        return answer

    def _note(self, answer: "Answer[NumberedQuestion]", progress: Progress) -> None:
        if answer.error is None:
            self._failed_in_a_row = 0
            self._answered += 1
            self._answers_usage += answer.usage or Usage()
        else:
            self.failed += 1
            self._failed_in_a_row += 1
            self.failures.append((answer.question.line, answer.error))
            if isinstance(answer.error, (*HOPELESS, QuotaExceededError)) and not isinstance(
                answer.error, ContextGoneError
            ):
                self.stopped = "further questions would fail like this one"
            elif self._failed_in_a_row >= _IN_A_ROW:
                self.stopped = f"{_IN_A_ROW} questions failed in a row"
        prompt = self._answers_usage.prompt_tokens
        cached = self._answers_usage.cached_tokens / prompt if prompt else None
        progress(self._answered + self.failed, self.failed, cached)
