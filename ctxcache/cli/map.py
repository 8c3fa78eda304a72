"""`ctxcache map`: many questions over one cached prefix, with the answers in a file. The next start does the rest."""

import argparse
import asyncio
import math
import os
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import attrs

from ..client.hooks import CreateEvent, Hooks, RecreateEvent
from ..client.session import AsyncSession
from ..config import UNSET
from ..errors import InvalidInputError
from ..models import system
from .batch.check import BadQuestionsError
from .batch.files import check_layout
from .batch.formats import FORMATS
from .batch.journal import FileJournal, Journal, StreamJournal
from .batch.merge import Merge
from .batch.questions import Questions
from .batch.settings import Settings
from .batch.shards import Shard, read_shard, shard_from_environment
from .batch.summary import summarize, summarize_merge, summarize_stop
from .batch.work import Work
from .failures import FAILED, USAGE
from .inputs import STDIN, read_text, seconds, whole_number
from .sampling import add_sampling_options, sampling_of
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

if TYPE_CHECKING:
    from ..managed import Prices, RedisStore, SQLiteStore

__all__ = ["add_options", "run"]

SUMMARY: Final = "ask many questions over one cached prefix, into a file"
DESCRIPTION: Final = """\
Ask many questions over one prefix, which the service keeps in its cache, and
write each answer to a file as it arrives, one JSON object a line.

Started again with the same files, the command does the rest. Whenever it was
stopped or killed, no answer is lost, written twice or torn. Failed questions
are listed at the end; the next start asks them again. Answers written with
another prefix, model or sampling, or to other questions, are refused.

A question is one line of JSON: a string, or an object with
  question or messages    a user's text, or a list of messages
  id                      optional: a string or a number, not used twice
  temperature, top_p, max_tokens, presence_penalty, frequency_penalty, stop
                          optional: override the options below
Unknown keys are refused. Questions with ids may be moved, and others inserted
between them; without ids, append only. Blank lines are skipped.

With --format text each line is a question; with --format csv the header names
the columns: question, id and the options above.

An answer is an object with line and id of the question, question_hash, answer,
finish_reason, usage, request_id, model, prefix_hash, sampling, context_id and
time (Unix seconds). The first answer over a new context also has created, with
the usage of the create. Answers are in order of arrival.

With --shard I/N each of N tasks of a scheduler asks its part of the questions:
I is from 0 to N-1, and answers.jsonl becomes answers.I-of-N.jsonl. A task of a
Slurm job array, or of a Kubernetes indexed Job with CTXCACHE_SHARDS=N, takes
its shard by itself; --shard none asks all questions there. Questions with an
id are dealt by a hash of the id, others in turn. Afterwards, --merge with the
same files writes the one file of answers, in the order of the questions."""
EXAMPLES: Final = """\
examples:
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl
  ctxcache map --prefix manual.md --questions q.jsonl --out answers.jsonl \\
      --ttl 1h --max-tokens 200 --prices input=0.8,cached=0.16,output=2
  ctxcache map ... --store ~/.cache/ctxcache.db --json | jq .cost
  ctxcache map ... --out answers.jsonl --shard 0/8   # and 1/8 to 7/8, then
  ctxcache map ... --out answers.jsonl --merge"""

STDOUT: Final = "-"
_PRICES: Final = {"input": "input", "cached": "cached", "output": "output", "storage": "storage_per_hour"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    _add_file_options(parser)
    _add_batch_options(parser)
    _add_shard_options(parser)
    add_sampling_options(parser, without=["n"])
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary to stdout, as one JSON object")


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument("--prefix", required=True, metavar="FILE", help="prefix, one system message; - is stdin")
    group.add_argument("--questions", required=True, metavar="FILE", help="questions, as above; - is stdin")
    group.add_argument(
        "--format", choices=tuple(FORMATS), default="jsonl", help="format of the questions (default: jsonl)"
    )
    group.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="answers; those already in the file are kept, and their questions not asked; - is stdout",
    )
    group.add_argument(
        "--fresh", action="store_true", help="ask all questions; an existing file of answers is renamed to FILE.1"
    )
    group.add_argument("--with-questions", action="store_true", help="repeat each question beside its answer")


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
        "--retry-for",
        type=seconds,
        metavar="TIME",
        help="how long to wait for a service that cannot be reached, or refuses every call, before questions fail: "
        "600, 10m, 1h30m (default: 2m)",
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
        metavar="FILE|URL",
        help="SQLite file, or a Redis as redis://HOST, that remembers the context, for the next start, other processes "
        "and, in a Redis, other machines (default: CTXCACHE_STORE, else none; each start creates a context)",
        default=os.environ.get("CTXCACHE_STORE") or None,
    )
    group.add_argument(
        "--prices",
        type=_prices,
        metavar="LIST",
        help="prices per million tokens, as input=X,cached=X,output=X and, for an hour of storage, storage=X; adds "
        "cost and saving to the summary (default: no prices)",
    )


def _add_shard_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("shards")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--shard",
        type=read_shard,
        default=UNSET,
        metavar="I/N",
        help="ask this part of the questions, from 0/N to N-1/N; none asks all (default: from SLURM_ARRAY_TASK_ID and "
        "its count, or JOB_COMPLETION_INDEX and CTXCACHE_SHARDS, where these are set)",
    )
    one.add_argument(
        "--merge",
        action="store_true",
        help="write the answers of all shards to --out, or say what is missing; nothing is sent",
    )
    group.add_argument("--partial", action="store_true", help="with --merge: write the answers that there are")


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
    _check_streams(args)
    if args.merge:
        return _merge(args, terminal)
    shard = _shard(args, terminal)
    model = model_of(args)
    from ..managed import Prefix  # would slow --help
    from ..managed.stores import open_store

    def note_create(event: CreateEvent | RecreateEvent) -> None:
        journal.note_create(event.context, time.time())

    session = open_session(args, hooks=Hooks(on_create=note_create, on_recreate=note_create))
    text = _read_prefix(args)
    sampling = sampling_of(args)
    store = None if args.store is None else open_store(args.store)
    prefix = Prefix(session, model=model, messages=[system(text)], ttl=args.ttl, store=store)
    prefix.check(**sampling)
    with closing(Questions(args.questions, args.format, shard)) as questions:
        journal = _open_journal(args, Settings.of(model, text, sampling), questions, shard, terminal)
        with closing(journal):
            try:
                work = Work(prefix, questions, journal, sampling)
            except BadQuestionsError as error:
                return _list_problems(error, terminal)
            return _finish(work, session, store, args, terminal)


def _check_streams(args: argparse.Namespace) -> None:
    if args.prefix == args.questions == STDIN:
        raise InvalidInputError("stdin can be read only once: give a file for --prefix or --questions")
    if args.out == STDOUT and args.json:
        raise InvalidInputError(
            "stdout cannot take both answers and summary: give a file for --out, or leave out --json"
        )
    if args.merge and (args.out == STDOUT or args.fresh):
        raise InvalidInputError("--merge takes no --fresh, and no - for --out, whose name gives those of the shards")
    if args.partial and not args.merge:
        raise InvalidInputError("--partial goes with --merge only")


def _read_prefix(args: argparse.Namespace) -> str:
    text = read_text(args.prefix)
    if not text.strip():
        raise InvalidInputError(f"{args.prefix}: the prefix is empty")
    return text


def _shard(args: argparse.Namespace, terminal: Terminal) -> Shard | None:
    """Return the shard from the command line or the environment, and say where the latter is so."""
    shard: Shard | None
    if args.shard is not UNSET:
        shard = args.shard
    else:
        found = shard_from_environment(os.environ)
        shard, name = found or (None, "")
        if shard is not None:
            terminal.note(f"shard {shard}, from {name}; --shard none asks all questions")
    if shard is not None and shard.count > 1 and args.store is None:
        terminal.note(f"without --store, each of the {shard.count} shards creates and pays for a context of its own")
    return shard


def _open_journal(
    args: argparse.Namespace, settings: Settings, questions: Questions, shard: Shard | None, terminal: Terminal
) -> Journal:
    if args.out == STDOUT:
        return StreamJournal(terminal.out, settings, with_questions=args.with_questions)
    check_layout(args.out, shard)
    name = args.out if shard is None else shard.file(args.out)
    return FileJournal(
        name, settings, most_lines=questions.size + 1, fresh=args.fresh, with_questions=args.with_questions
    )


def _merge(args: argparse.Namespace, terminal: Terminal) -> int:
    """Merge the shards, or say what is missing."""
    settings = Settings.of(model_of(args), _read_prefix(args), sampling_of(args))
    with closing(Questions(args.questions, args.format)) as questions:
        try:
            merge = Merge(args.out, settings, questions)
        except BadQuestionsError as error:
            return _list_problems(error, terminal)
        with closing(merge):
            is_written = merge.is_complete or args.partial
            if is_written:
                merge.write()
            else:
                merge.add_up()
            summarize_merge(merge, terminal, _prices_of(args), is_written=is_written, as_json=args.json)
            return 0 if merge.is_complete else FAILED


def _prices_of(args: argparse.Namespace) -> "Prices | None":
    from ..managed import Prices

    return None if args.prices is None else Prices(**args.prices)


def _list_problems(error: BadQuestionsError, terminal: Terminal) -> int:
    for problem in error.problems:
        terminal.error(problem)
    more = error.count - len(error.problems)
    if more:
        terminal.error(f"and {more:,} more bad line{'' if more == 1 else 's'}")
    return USAGE


def _finish(
    work: Work,
    session: AsyncSession,
    store: "SQLiteStore | RedisStore | None",
    args: argparse.Namespace,
    terminal: Terminal,
) -> int:
    """Ask what is left to ask, and sum up."""
    prices = _prices_of(args)
    retry = session.retry
    if args.retry_for is not None:
        retry = attrs.evolve(retry, max_elapsed=float(args.retry_for))
    bar = args.out != STDOUT or not terminal.out.is_terminal

    async def do() -> None:
        try:
            async with session:
                await work.do(terminal, concurrency=args.concurrency, retry=retry, bar=bar)
        except asyncio.CancelledError:
            summarize_stop(work, terminal, prices)
            raise
        finally:
            if store is not None:
                await store.aclose()

    if remark := work.journal.begin():
        terminal.note(remark)
    if work.total:
        asyncio.run(do())
    summarize(work, terminal, prices, as_json=args.json)
    return FAILED if work.failed or work.stopped else 0
