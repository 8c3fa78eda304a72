"""The books of a file of answers: usage and cost over all starts of a batch.

Each answer in the file has usage, context and time. The first answer after the create of a context has the create, too,
so the bill of all starts can be made from the file alone. Only a create that no answer followed is missing there.
The lines of a merged file are in the order of the questions: the contexts of all shards are in use at once, and an
answer may stand before the create of its context.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from ...models import Usage
from ..usage import read_usage

if TYPE_CHECKING:
    from ...managed import Cost, Prices

__all__ = ["Alive", "Books"]

_KNOWN: Final = 16  # contexts whose end is remembered


@attrs.frozen
class Alive:
    """A context whose storage is billed until `end`, in Unix seconds, or longer if the context is used."""

    context_id: str
    end: float


class Books:
    """Usage, cost and contexts of a file of answers."""

    def __init__(self) -> None:
        from ...managed.costs import Ledger  # would slow --help

        self._ledger = Ledger(open_accounts=math.inf)
        self._uses: dict[str, tuple[float, float]] = {}  # of each created context: the last use, and the ttl

    @property
    def creates(self) -> int:
        """Number of creates."""
        return self._ledger.creates

    @property
    def usage(self) -> Usage:
        """Usage of all answers and creates."""
        return self._ledger.usage

    def cost(self, prices: "Prices", now: float) -> "Cost":
        """Return the cost of all answers, creates and storage up to `now`, in Unix seconds."""
        return self._ledger.cost(prices, now)

    def still_billed(self, now: float) -> "Alive | None":
        """Return the context whose storage is billed longest, or None if all contexts have ended."""
        alive = [Alive(context_id, used_at + ttl) for context_id, (used_at, ttl) in self._uses.items()]
        last = max(alive, key=lambda context: context.end, default=None)
        return last if last is not None and last.end > now else None

    def created(self, context_id: str, usage: Usage | None, at: float, ttl: float) -> None:
        """Enter the create of a context with an idle time of `ttl` seconds."""
        self._ledger.created(context_id, usage, at, ttl)
        self._uses[context_id] = (at, ttl)
        while len(self._uses) > _KNOWN:
            del self._uses[next(iter(self._uses))]

    def answered(self, context_id: str | None, usage: Usage | None, at: float) -> None:
        """Enter an answer."""
        self._ledger.used(context_id or "", usage, at)
        if context_id in self._uses:
            used_at, ttl = self._uses[context_id]
            self._uses[context_id] = (max(used_at, at), ttl)

    def enter_line(self, fields: Mapping[str, Any]) -> None:
        """Enter an answer from a line of the file. Odd or missing values count as unknown."""
        at = _number(fields.get("time"))
        created = fields.get("created")
        for create in created if isinstance(created, list) else []:
            if isinstance(create, dict):
                self.created(
                    str(create.get("context_id")),
                    read_usage(create.get("usage")),
                    _number(create.get("time")),
                    _number(create.get("ttl")),
                )
        context_id = fields.get("context_id")
        self.answered(context_id if isinstance(context_id, str) else None, read_usage(fields.get("usage")), at)


def _number(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if number else 0.0  # type: ignore[arg-type]  # a number
