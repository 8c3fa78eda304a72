"""`ctxcache map`: many questions over one cached prefix, with the answers in a file. The next start does the rest."""

import argparse
import asyncio
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..client.session import AsyncSession
from ..config import UNSET
from ..errors import InvalidInputError
from ..models import system
from .batch.journal import Journal
from .batch.summary import summarize
from .batch.work import Work
from .failures import FAILED
from .inputs import read_text, seconds, whole_number
from .sampling import add_sampling_options, sampling_of
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

if TYPE_CHECKING:
    from ..managed import SQLiteStore

__all__ = ["add_options", "run"]

SUMMARY: Final = "ask many questions over one cached prefix, into a file"
DESCRIPTION: Final = """\
Ask many questions over one prefix, which the service keeps in its cache, and
write each answer to a file as it arrives, one JSON object a line.

Started again with the same files, the command does the rest. Whenever it was
stopped or killed, no answer is lost, written twice or torn. Failed questions
are listed at the end; the next start asks them again.

A question is one line of JSON: a string, or an object with "question" or
"messages", and optionally "id". Blank lines are skipped.

An answer is an object with line (of the question), id, question_hash, answer,
finish_reason, usage and request_id. Answers are in order of arrival."""
EXAMPLES: Final = """\
examples:
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl \\
      --ttl 1h --max-tokens 200 --prices input=0.8,cached=0.16,output=2
  ctxcache map ... --store ~/.cache/ctxcache.db --json | jq .cost"""

_PRICES: Final = {"input": "input", "cached": "cached", "output": "output", "storage": "storage_per_hour"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("files")
    group.add_argument("--prefix", required=True, metavar="FILE", help="prefix, one system message; - is stdin")
    group.add_argument("--questions", required=True, metavar="FILE", help="questions, one a line, as above")
    group.add_argument("--out", required=True, metavar="FILE", help="answers; those already in the file are kept")
    _add_batch_options(parser)
    add_sampling_options(parser, without=["n"])
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary to stdout, as one JSON object")


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batch")
    group.add_argument(
        "--concurrency",
        type=whole_number(1),
        default=64,
        metavar="N",
        help="upper limit of concurrent calls; the actual number follows the service's rate limit (default: 64)",
    )
    group.add_argument(
        "--ttl",
        type=seconds,
        default=UNSET,
        metavar="TIME",
        help="idle time after which the prefix ends, from 1h to 7d: 3600, 1h, 1h30m (default: the service's, 1d)",
    )
    group.add_argument(
        "--store",
        metavar="FILE",
        help="SQLite file that remembers the context, for the next start and other processes (default: none; each "
        "start creates a context)",
    )
    group.add_argument(
        "--prices",
        type=_prices,
        metavar="LIST",
        help="price of a million tokens, as input=X,cached=X,output=X and, for an hour of storage, storage=X; adds "
        "cost and saving to the summary (default: no prices)",
    )


def _prices(text: str) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        field = _PRICES.get(name.strip())
        with suppress(ValueError):
            if field is not None and field not in given and 0 <= float(number) < math.inf:
                given[field] = float(number)
                continue
        raise argparse.ArgumentTypeError(f"{part!r} is not a price; use input=X,cached=X,output=X,storage=X, each once")
    for name, field in _PRICES.items():
        if field not in given and name != "storage":
            raise argparse.ArgumentTypeError(f"the price of {name} is missing")
    return given


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Ask the questions that have no answer yet."""
    model, session = model_of(args), open_session(args)
    text = read_text(args.prefix)
    if not text.strip():
        raise InvalidInputError(f"{args.prefix}: the prefix is empty")
    from ..managed import Prefix, Prices, SQLiteStore  # would slow --help

    store = None if args.store is None else SQLiteStore(args.store)
    prefix = Prefix(session, model=model, messages=[system(text)], ttl=args.ttl, store=store)
    sampling = sampling_of(args)
    prefix.check(**sampling)
    journal = Journal(args.out, most_lines=_size(args.questions) + 1)
    try:
        work = Work(prefix, journal, args.questions, sampling)
        if work.total:
            asyncio.run(_do(work, session, store, args, terminal))
        prices = None if args.prices is None else Prices(**args.prices)
        summarize(work, terminal, None if prices is None else prefix.cost(prices), as_json=args.json)
    finally:
        journal.close()
    return FAILED if work.failed or work.stopped else 0


async def _do(
    work: Work, session: AsyncSession, store: "SQLiteStore | None", args: argparse.Namespace, terminal: Terminal
) -> None:
    try:
        async with session:
            await work.do(terminal, concurrency=args.concurrency, retry=session.retry)
    finally:
        if store is not None:
            await store.aclose()


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError as error:
        raise InvalidInputError(f"{name}: {error.strerror or error}") from None
