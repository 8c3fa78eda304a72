"""The last words of a start or a merge: failures, counts, usage and cost."""

import json
import time
from typing import TYPE_CHECKING, Any

from ...config import UNSET
from ...errors import CtxCacheError
from ...models import Usage
from ..failures import describe, is_permanent
from ..terminal import Terminal, one_line
from ..usage import usage_json, usage_line
from .merge import Merge, ShardAnswers, State
from .questions import NumberedQuestion
from .work import Work

if TYPE_CHECKING:
    from ...managed import Cost, Prices

__all__ = ["summarize", "summarize_merge", "summarize_stop"]


def summarize(work: Work, terminal: Terminal, prices: "Prices | None", *, as_json: bool) -> None:
    """List the failures on stderr, and add up: in words on stderr, or in JSON on stdout."""
    for question, error in sorted(work.failures, key=lambda failure: failure[0].line):
        terminal.error(f"{question.place}: {type(error).__name__}: {describe(error)}")
    if work.failed > len(work.failures):
        terminal.error(f"and {work.failed - len(work.failures):,} more failed before these")
    if work.stopped:
        terminal.error(f"{work.stopped}: the rest was not asked")
    if as_json:
        terminal.out.line(json.dumps(_fields(work, prices)))
        return
    terminal.note(f"{work.progress} ({work.new:,} new){_failed(work)}")
    _add_up(work, terminal, prices)


def summarize_stop(work: Work, terminal: Terminal, prices: "Prices | None") -> None:
    """Say after Ctrl-C how far the batch came, and what was used."""
    terminal.note(f"stopped with {work.progress}; start it again for the rest")
    _add_up(work, terminal, prices)


def _add_up(work: Work, terminal: Terminal, prices: "Prices | None") -> None:
    if work.total:
        terminal.note(usage_line(work.usage))
    cost = _cost(work, prices)
    if cost is not None:
        terminal.note(f"over all starts, {cost}" if work.before else str(cost))


def _failed(work: Work) -> str:
    """Return the number of failures, with advice."""
    again = work.failed - work.failed_for_good
    if not work.failed:
        return ""
    if not work.failed_for_good:
        advice = "start it again to retry"
    elif not again:
        advice = "start it again when the cause is mended" if work.stopped else "a retry would fail, too"
    else:
        advice = f"start it again to retry {again:,}, the others would fail again"
    return f", {work.failed:,} failed: {advice}"


def _cost(work: Work, prices: "Prices | None") -> "Cost | None":
    """Return the cost of all answers in the file; None without prices or answers."""
    if prices is None or not work.journal.answered.count:
        return None
    return work.journal.books.cost(prices, work.clock())


def _fields(work: Work, prices: "Prices | None") -> dict[str, Any]:
    fields = {
        "questions": work.before + work.total,
        "answered_before": work.before,
        "answered": work.new,
        "failed": work.failed,
        "failed_for_good": work.failed_for_good,
        "calls": work.new + work.failed,
        "stopped": work.stopped or None,
        "usage": _usage_fields(work.usage),
        "usage_of_all_starts": _usage_fields(work.journal.books.usage),
        "failures": [_failure_fields(question, error) for question, error in work.failures],
    }
    cost = _cost(work, prices)
    return fields if cost is None else {**fields, "cost": _cost_fields(cost)}


def _usage_fields(usage: Usage) -> dict[str, Any]:
    return {**usage_json(usage), "cached_tokens": usage.cached_tokens, "fresh_tokens": usage.fresh_tokens}


def _failure_fields(question: NumberedQuestion, error: CtxCacheError) -> dict[str, Any]:
    fields = {
        "line": question.line,
        "id": question.id,
        "error": type(error).__name__,
        "message": one_line(describe(error)),
        "for_good": is_permanent(error),
    }
    return {name: value for name, value in fields.items() if value is not UNSET}


def _cost_fields(cost: "Cost") -> dict[str, Any]:
    names = ("calls", "input", "cached", "output", "storage", "total", "without", "saved", "break_even_calls")
    return {name: getattr(cost, name) for name in names} | {"told": str(cost)}


# --- a merge ----------------------------------------------------------------------------------------------------------


def summarize_merge(
    merge: Merge, terminal: Terminal, prices: "Prices | None", *, is_written: bool, as_json: bool
) -> None:
    """Say of each shard what is missing on stderr, and add up: in words on stderr, or in JSON on stdout."""
    for shard in merge.shards:
        if shard.state is not State.COMPLETE:
            terminal.error(f"shard {shard.shard}: {_shortage(shard)}")
    if not is_written:
        missing = f"{merge.missing:,} of {merge.questions:,} questions have no answer"
        terminal.error(f"{merge.name} was not written: {missing}; --partial writes the other answers")
    answers = merge.questions - merge.missing
    cost = None if prices is None or not answers else merge.books.cost(prices, time.time())
    if as_json:
        fields = {
            "questions": merge.questions,
            "answered": answers,
            "missing": merge.missing,
            "written": is_written,
            "usage_of_all_starts": _usage_fields(merge.books.usage),
            "shards": [_shard_fields(shard) for shard in merge.shards],
        }
        terminal.out.line(json.dumps(fields if cost is None else {**fields, "cost": _cost_fields(cost)}))
        return
    where = f"in {merge.name}, from" if is_written else "in"
    terminal.note(f"{answers:,} of {merge.questions:,} answers {where} {len(merge.shards):,} shards")
    if answers:
        terminal.note(usage_line(merge.books.usage))
    if cost is not None:
        terminal.note(f"over all starts, {cost}")


def _shortage(shard: ShardAnswers) -> str:
    """Return what is missing, and what to do."""
    questions = "1 question" if shard.questions == 1 else f"{shard.questions:,} questions"
    if shard.state is State.REFUSED:
        return shard.problem
    if shard.state is State.LOST:
        return f"lost, there is no {shard.name}: start it with --shard {shard.shard} for its {questions}"
    more = f" and {shard.missing - len(shard.places):,} more" if shard.missing > len(shard.places) else ""
    missing = f"{shard.missing:,} of {questions} without an answer: {', '.join(shard.places)}{more}"
    if shard.state is State.RUNNING:
        return f"still running, {missing}"
    torn = "; the last answer was cut off by a kill" if shard.is_torn else ""
    return f"{missing}{torn}; they failed or were not asked, start it again with --shard {shard.shard}"


def _shard_fields(shard: ShardAnswers) -> dict[str, Any]:
    return {
        "shard": str(shard.shard),
        "file": shard.name,
        "state": shard.state.value,
        "questions": shard.questions,
        "answered": shard.answers,
        "missing": shard.missing,
        "torn": shard.is_torn,
        "problem": shard.problem or None,
    }
