"""One start of a batch: asks the questions without an answer, and counts."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ...config import Retry
from ...errors import ContextGoneError, CtxCacheError, QuotaExceededError
from ...models import ChatCompletion, Usage
from ..failures import HOPELESS, is_permanent
from ..terminal import Terminal
from .check import count_questions
from .journal import Journal, WriteError
from .progress import Progress, show_progress
from .questions import NumberedQuestion, Questions

if TYPE_CHECKING:
    from ...managed import Answer, Prefix

__all__ = ["Work"]

_LISTED: Final = 20
_IN_A_ROW: Final = 100  # failures without a success between, after which the batch gives up


class Work:
    """One start of a batch.

    Args:
        prefix: answers the questions.
        questions: all questions of the batch.
        journal: the answers so far; gets the new ones.
        sampling: options of every question.
        clock: Unix seconds.

    Attributes:
        journal: the answers.
        before: number of answers before this start.
        total: number of questions to ask.
        failed: number of questions that failed.
        failed_for_good: number of failed questions that would fail again.
        failures: the last questions that failed, and why.
        stopped: why the remaining questions were not asked, or "".

    Raises:
        InvalidInputError: a line is not a question, or the answers are for different questions.
    """

    def __init__(
        self,
        prefix: "Prefix",
        questions: Questions,
        journal: Journal,
        sampling: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.journal = journal
        self.before = journal.answered.count
        self.total = count_questions(questions, journal) - self.before
        self.failed = 0
        self.failed_for_good = 0
        self.failures: deque[tuple[NumberedQuestion, CtxCacheError]] = deque(maxlen=_LISTED)
        self.stopped = ""
        self.clock = clock
        self._prefix = prefix
        self._questions = questions
        self._sampling = sampling
        self._answered = 0
        self._failed_in_a_row = 0
        self._answers_usage = Usage()

    @property
    def new(self) -> int:
        """Number of answers of this start."""
        return self.journal.answered.count - self.before

    @property
    def usage(self) -> Usage:
        """Usage of all calls of this start, creates included."""
        return self._prefix.usage

    @property
    def progress(self) -> str:
        """How many questions have an answer."""
        return f"{self.before + self.new:,} of {self.before + self.total:,} answers in {self.journal.name}"

    async def do(self, terminal: Terminal, *, concurrency: int, retry: Retry, bar: bool) -> None:
        """Ask the questions without an answer.

        Raises:
            CtxCacheError: the context cannot be created, or an answer cannot be written.
        """
        from ...managed import Map

        begun = asyncio.Event()

        async def ask(question: NumberedQuestion, /, *, retry: Retry) -> ChatCompletion:
            if not begun.is_set():
                await self._warm(terminal)
                begun.set()
            return await self._ask(question, retry)

        try:
            async with (
                show_progress(terminal, self.total, bar=bar) as progress,
                Map(
                    ask,
                    self._open(begun),
                    concurrency=concurrency,
                    retry=retry,
                    paused=lambda: self._prefix.paused,
                ) as answers,
            ):
                async for answer in answers:
                    if answer.error is not None and not begun.is_set():
                        raise answer.error  # no context, so no question can be asked
                    self._note(answer, progress)
        except WriteError as error:
            raise CtxCacheError(str(error)) from None

    async def _warm(self, terminal: Terminal) -> None:
        """Create the context, or find it in the store; mention a context of an earlier start that is still billed."""
        books = self.journal.books
        old, creates = books.still_billed(self.clock()), books.creates
        context = await self._prefix.warm()
        if old is not None and books.creates > creates:
            hours = (old.end - self.clock()) / 3600
            terminal.note(
                f"created {context.id}; the storage of {old.context_id}, from an earlier start, is billed for up to "
                f"{hours:.1f} h more. With --store FILE the next start finds the context again"
            )

    async def _open(self, begun: asyncio.Event) -> AsyncIterator[NumberedQuestion]:
        """Yield the questions without an answer, until the batch is stopped; only the first before it has begun."""
        for question in self._questions:
            if self.stopped:
                return
            if isinstance(question, NumberedQuestion) and self._is_open(question):
                yield question
                await begun.wait()

    def _is_open(self, question: NumberedQuestion) -> bool:
        return self._questions.has(question) and question not in self.journal.answered

    async def _ask(self, question: NumberedQuestion, retry: Retry) -> ChatCompletion:
        options = {**self._sampling, **question.options}
        answer = await self._prefix.ask(question.messages, retry=retry, **options)
        # At once, so that Ctrl-C loses no answer.
        self.journal.write(question, answer, answer.context_id, self.clock())
        return answer

    def _note(self, answer: "Answer[NumberedQuestion]", progress: Progress) -> None:
        if answer.error is None:
            self._answered += 1
            self._failed_in_a_row = 0
            self._answers_usage += answer.usage or Usage()
        else:
            self._fail(answer.question, answer.error)
        prompt = self._answers_usage.prompt_tokens
        cached = self._answers_usage.cached_tokens / prompt if prompt else None
        progress(self._answered + self.failed, self.failed, cached)

    def _fail(self, question: NumberedQuestion, error: CtxCacheError) -> None:
        self.failed += 1
        self.failed_for_good += is_permanent(error)
        self._failed_in_a_row += 1
        self.failures.append((question, error))
        hopeless = isinstance(error, (*HOPELESS, QuotaExceededError)) and not isinstance(error, ContextGoneError)
        if hopeless:
            self.stopped = "further questions would fail like this one"
        elif self._failed_in_a_row >= _IN_A_ROW:
            self.stopped = f"{_IN_A_ROW} questions failed in a row"
