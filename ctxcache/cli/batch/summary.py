"""The last words of a batch: failures, counts, usage and cost."""

import json
from typing import TYPE_CHECKING, Any

from ...config import UNSET
from ...errors import CtxCacheError
from ...models import Usage
from ..failures import describe, is_permanent
from ..terminal import Terminal, one_line
from ..usage import usage_json, usage_line
from .questions import NumberedQuestion
from .work import Work

if TYPE_CHECKING:
    from ...managed import Cost, Prices

__all__ = ["summarize", "summarize_stop"]


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
