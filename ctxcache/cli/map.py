"""`ctxcache map`: many questions over one cached prefix, their answers in a file; started again, it does the rest."""

import argparse
import asyncio
import json
import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..client.session import AsyncSession
from ..config import UNSET, Retry
from ..errors import (
    AuthenticationError,
    ContextGoneError,
    CtxCacheError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
)
from ..models import ChatCompletion, Usage, system
from .failures import FAILED, describe
from .inputs import read_text, seconds
from .journal import Journal, WriteError
from .progress import Progress, show_progress
from .questions import NumberedQuestion, read_questions
from .service import add_service_options, model_of, open_session
from .terminal import Terminal, one_line, usage_line

if TYPE_CHECKING:
    from ..managed import Answer, Cost, Prefix, Prices

__all__ = ["add_options", "run"]

SUMMARY: Final = "ask many questions over one cached prefix, into a file"
DESCRIPTION: Final = """\
Ask many questions over one prefix, which the service keeps in its cache, and
write each answer to a file as it comes, one JSON object a line.

Started again with the same files, it does the rest: whatever moment it was
stopped or killed at, no answer is lost, written twice or torn. Questions that
failed are listed at the end and are part of the rest.

A question is one line of JSON: a string, or an object with "question" or
"messages", and with an "id" if you like. Blank lines are skipped.

An answer is an object with line (of its question), id, question_hash, answer,
finish_reason, usage and request_id; they are in the order in which they came."""
EXAMPLES: Final = """\
examples:
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl \\
      --ttl 1h --max-tokens 200 --prices input=0.8,cached=0.16,output=2
  ctxcache map ... --store ~/.cache/ctxcache.db --json | jq .cost"""

_SAMPLING: Final = (
    ("temperature", float, "X", "randomness, 0 to 2"),
    ("top-p", float, "X", "share of the probability mass to sample from, 0 to 1"),
    ("max-tokens", int, "N", "the most tokens of one reply"),
)
_LISTED: Final = 20
_IN_A_ROW: Final = 100  # failures without a success between them, after which going on makes no sense
_HOPELESS: Final = (AuthenticationError, NotFoundError, PermissionDeniedError, QuotaExceededError)
_PRICES: Final = {"input": "input", "cached": "cached", "output": "output", "storage": "storage_per_hour"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("files")
    group.add_argument("--prefix", required=True, metavar="FILE", help="the prefix, one system message; - is stdin")
    group.add_argument("--questions", required=True, metavar="FILE", help="the questions, one a line, as above")
    group.add_argument("--out", required=True, metavar="FILE", help="where the answers go, and what is done already")
    _add_how(parser.add_argument_group("how"))
    group = parser.add_argument_group("sampling (default of each: the service's)")
    for name, kind, metavar, text in _SAMPLING:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary on stdout, as one JSON object")


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--concurrency",
        type=_count,
        default=64,
        metavar="N",
        help="the most calls at once; how many there are, depends on what the service takes (default: 64)",
    )
    group.add_argument(
        "--ttl",
        type=seconds,
        default=UNSET,
        metavar="TIME",
        help="idle time after which the service drops the prefix: 3600 to 604800 seconds, or like 1h, 7d (default: the "
        "service's, 1d)",
    )
    group.add_argument(
        "--store",
        metavar="FILE",
        help="an SQLite file in which the context is found again, by the next start and by other processes (default: "
        "none, each start makes a context)",
    )
    group.add_argument(
        "--prices",
        type=_prices,
        metavar="LIST",
        help="what a million tokens cost, as input=X,cached=X,output=X and, for an hour of storage, storage=X: the "
        "summary then says what this run cost, and whether caching paid (default: no prices)",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 up")
    return number


def _prices(text: str) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        field = _PRICES.get(name.strip())
        with suppress(ValueError):
            if field is not None and field not in given and 0 <= float(number) < math.inf:
                given[field] = float(number)
                continue
        raise argparse.ArgumentTypeError(f"{part!r} is no price: give input=X,cached=X,output=X,storage=X, each once")
    for name, field in _PRICES.items():
        if field not in given and name != "storage":
            raise argparse.ArgumentTypeError(f"the price of {name} is missing")
    return given


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Do what is not done yet."""
    model, session = model_of(args), open_session(args)
    text = read_text(args.prefix)
    if not text.strip():
        raise InvalidInputError(f"{args.prefix}: the prefix is empty")
    from ..managed import Prefix, Prices, SQLiteStore  # not for the sake of a --help

    store = None if args.store is None else SQLiteStore(args.store)
    prefix = Prefix(session, model=model, messages=[system(text)], ttl=args.ttl, store=store)
    options = {name: value for name in _option_names() if (value := getattr(args, name)) is not None}
    prefix.check(**options)
    prices = None if args.prices is None else Prices(**args.prices)
    journal = _open_journal(args)
    try:
        work = _Work(args, journal, prefix, options)
        if work.total:
            asyncio.run(work.do(session, store, terminal))
        work.tell(terminal, prices)
    finally:
        journal.close()
    return FAILED if work.failed or work.stopped else 0


def _option_names() -> Iterator[str]:
    return (name.replace("-", "_") for name, *_ in _SAMPLING)


def _open_journal(args: argparse.Namespace) -> Journal:
    try:
        size = os.stat(args.questions).st_size
    except OSError as error:
        raise InvalidInputError(f"{args.questions}: {error.strerror or error}") from None
    return Journal(args.out, most_lines=size + 1)


class _Work:
    """One start of the command.

    Attributes:
        total: questions to ask.
        failed: those that failed.
        stopped: why the rest was not asked, "" if it was.
    """

    def __init__(self, args: argparse.Namespace, journal: Journal, prefix: "Prefix", options: dict[str, Any]) -> None:
        self._args = args
        self._journal = journal
        self._prefix = prefix
        self._options = options
        self._read = partial(read_questions, args.questions)
        self._before = journal.count
        self.total = journal.check(self._read) - journal.count
        self.failed = 0
        self.stopped = ""
        self._in_a_row = 0
        self._listed: deque[tuple[int, CtxCacheError]] = deque(maxlen=_LISTED)
        self._answered = 0
        self._usage = Usage()

    async def do(self, session: AsyncSession, store: Any, terminal: Terminal) -> None:
        """Ask what is not answered."""
        from ..managed import Map

        async with session:
            try:
                await self._prefix.warm()
                with show_progress(terminal, self.total) as progress:
                    concurrency = self._args.concurrency
                    async with Map(self._ask, self._open(), concurrency=concurrency, retry=session.retry) as answers:
                        async for answer in answers:
                            self._note(answer, progress)
            except asyncio.CancelledError:
                terminal.note(f"stopped with {self._count()}; start it again for the rest")
                raise
            except WriteError as error:
                raise CtxCacheError(str(error)) from None
            finally:
                if store is not None:
                    await store.aclose()

    def _open(self) -> Iterator[NumberedQuestion]:
        """The questions not answered yet, until that makes no sense any more."""
        for item in self._read():
            if self.stopped:
                return
            if item.line not in self._journal:
                yield item

    async def _ask(self, item: NumberedQuestion, /, *, retry: Retry) -> ChatCompletion:
        answer = await self._prefix.ask(item.messages, retry=retry, **self._options)
        self._journal.write(item, answer)  # here, so that a Ctrl-C finds no answer that is not written
        return answer

    def _note(self, answer: "Answer[NumberedQuestion]", progress: Progress) -> None:
        if answer.error is None:
            self._in_a_row = 0
            self._answered += 1
            self._usage += answer.usage or Usage()
        else:
            self.failed += 1
            self._in_a_row += 1
            self._listed.append((answer.question.line, answer.error))
            if isinstance(answer.error, _HOPELESS) and not isinstance(answer.error, ContextGoneError):
                self.stopped = "further questions would fail like this one"
            elif self._in_a_row >= _IN_A_ROW:
                self.stopped = f"{_IN_A_ROW} questions failed in a row"
        prompt = self._usage.prompt_tokens
        cached = self._usage.cached_tokens / prompt if prompt else None
        progress(self._answered + self.failed, self.failed, cached)

    def _count(self) -> str:
        return f"{self._journal.count:,} of {self._before + self.total:,} answers in {self._args.out}"

    def tell(self, terminal: Terminal, prices: "Prices | None") -> None:
        """Say what failed, and sum up."""
        cost = None if prices is None else self._prefix.cost(prices)
        for line, error in sorted(self._listed, key=lambda one: one[0]):
            terminal.error(f"line {line}: {type(error).__name__}: {describe(error)}")
        if self.failed > len(self._listed):
            terminal.error(f"and {self.failed - len(self._listed):,} more failed before these")
        if self.stopped:
            terminal.error(f"{self.stopped}: the rest was not asked")
        if self._args.json:
            terminal.out.line(json.dumps(self._everything(cost)))
            return
        again = f", {self.failed:,} failed: start it again to retry" if self.failed else ""
        terminal.note(f"{self._count()} ({self._journal.count - self._before:,} new){again}")
        if self.total:
            terminal.note(usage_line(self._prefix.usage))
        if cost is not None and self.total:
            terminal.note(str(cost))

    def _everything(self, cost: "Cost | None") -> dict[str, Any]:
        usage = self._prefix.usage
        told = {
            "questions": self._before + self.total,
            "answered_before": self._before,
            "answered": self._journal.count - self._before,
            "failed": self.failed,
            "calls": self._journal.count - self._before + self.failed,
            "stopped": self.stopped or None,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "fresh_tokens": usage.fresh_tokens,
                "completion_tokens": usage.completion_tokens,
            },
            "failures": [
                {"line": line, "error": type(error).__name__, "message": one_line(describe(error))}
                for line, error in self._listed
            ],
        }
        return told if cost is None else {**told, "cost": _money(cost)}


def _money(cost: "Cost") -> dict[str, Any]:
    names = ("calls", "input", "cached", "output", "storage", "total", "without", "saved", "break_even_calls")
    return {name: getattr(cost, name) for name in names} | {"told": str(cost)}
