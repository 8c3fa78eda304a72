"""The last words of a batch: failures, counts, usage and cost."""

import json
from typing import TYPE_CHECKING, Any

from ..failures import describe
from ..terminal import Terminal, one_line
from ..usage import usage_json, usage_line
from .work import Work

if TYPE_CHECKING:
    from ...managed import Cost

__all__ = ["summarize"]


def summarize(work: Work, terminal: Terminal, cost: "Cost | None", *, as_json: bool) -> None:
    """List the failures on stderr, and add up: in words on stderr, or in JSON on stdout."""
    for line, error in sorted(work.failures, key=lambda failure: failure[0]):
        terminal.error(f"line {line}: {type(error).__name__}: {describe(error)}")
    if work.failed > len(work.failures):
        terminal.error(f"and {work.failed - len(work.failures):,} more failed before these")
    if work.stopped:
        terminal.error(f"{work.stopped}: the rest was not asked")
    if as_json:
        terminal.out.line(json.dumps(_fields(work, cost)))
        return
    new = work.journal.count - work.before
    again = f", {work.failed:,} failed: start it again to retry" if work.failed else ""
    terminal.note(f"{work.progress} ({new:,} new){again}")
    if work.total:
        terminal.note(usage_line(work.usage))
    if cost is not None and work.total:
        terminal.note(str(cost))


def _fields(work: Work, cost: "Cost | None") -> dict[str, Any]:
    usage = work.usage
    new = work.journal.count - work.before
    fields = {
        "questions": work.before + work.total,
        "answered_before": work.before,
        "answered": new,
        "failed": work.failed,
        "calls": new + work.failed,
        "stopped": work.stopped or None,
        "usage": {
            **usage_json(usage),
            "cached_tokens": usage.cached_tokens,
            "fresh_tokens": usage.fresh_tokens,
        },
        "failures": [
            {"line": line, "error": type(error).__name__, "message": one_line(describe(error))}
            for line, error in work.failures
        ],
    }
    return fields if cost is None else {**fields, "cost": _cost_fields(cost)}


def _cost_fields(cost: "Cost") -> dict[str, Any]:
    names = ("calls", "input", "cached", "output", "storage", "total", "without", "saved", "break_even_calls")
    return {name: getattr(cost, name) for name in names} | {"told": str(cost)}
