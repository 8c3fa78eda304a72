"""What changed between two runs beyond the noise."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from . import scenarios
from .analysis import ratio, shown, shown_series
from .cases import Metric
from .clients import FLOOR
from .results import Results, Series

__all__ = ["Change", "changes", "text"]

SMALLEST: Final = 0.03  # a change of the median of less than this is none worth telling
ROUNDS: Final = 3  # fewer in both runs tell nothing of the noise


@dataclass(frozen=True)
class Change:
    """A figure of both runs. `better` is None where it has not changed beyond the noise."""

    scenario: str
    case: str
    client: str
    metric: Metric
    before: Series
    after: Series

    @property
    def factor(self) -> float:
        """The new median over the old."""
        before, after = self.before.median, self.after.median
        return after / before if before else (1.0 if not after else math.inf)

    @property
    def better(self) -> bool | None:
        """Whether it changed for the better.

        Beyond the noise is: the ranges of the rounds do not overlap, and the medians differ by more than 3%. Of
        figures that did not change, with 5 rounds in each run that happens to one in 126; with 3 rounds, to one in 10.
        """
        apart = self.before.high < self.after.low or self.after.high < self.before.low
        if not apart or abs(self.factor - 1) <= SMALLEST:
            return None
        return (self.factor > 1) == self.metric.more


def changes(old: Results, new: Results, *, over_floor: bool = False) -> Iterator[Change]:
    """Every figure that both runs have; with `over_floor` as a multiple of bare aiohttp's in the same round."""

    def series(results: Results, scenario: str, case: str, client: str, metric: str) -> Series:
        if over_floor:
            return ratio(results, scenario, case, metric, (client, FLOOR))
        return results.series(scenario, case, client, metric)

    for name in old.scenarios():
        scenario = scenarios.load(name)
        for case in old.cases(name):
            for client in old.clients(name):
                for metric in scenario.metrics:
                    before, after = (series(run, name, case, client, metric.key) for run in (old, new))
                    if before and after and not (over_floor and client == FLOOR):
                        yield Change(name, case, client, metric, before, after)


def text(old: Results, new: Results, *, over_floor: bool = False) -> str:
    """What changed, for people."""
    found = list(changes(old, new, over_floor=over_floor))
    changed = [change for change in found if change.better is not None]
    lines = [
        f"{old.commit or 'A'} → {new.commit or 'B'}: {len(changed)} of {len(found)} figures changed beyond the noise"
    ]
    for key in ("machine", "versions", "size"):
        if getattr(old, key) != getattr(new, key):
            lines.append(
                f"warning: the runs differ in their {key}: {_difference(getattr(old, key), getattr(new, key))}"
            )
    if min((len(change.before.values) for change in found), default=ROUNDS) < ROUNDS:
        lines.append(f"warning: fewer than {ROUNDS} rounds: what follows may be noise")
    for change in sorted(changed, key=lambda change: (change.better is True, -abs(math.log(change.factor or 1)))):
        verdict = "better" if change.better else "WORSE "
        values = f"{shown_series(change.before)} → {shown_series(change.after)} {change.metric.unit}".strip()
        where = f"{change.scenario}, {change.case}, {change.client}: {change.metric.label}"
        lines.append(f"{verdict} ×{shown(change.factor)}  {where}: {values}")
    return "\n".join(lines)


def _difference(old: object, new: object) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in keys)
    return f"{old} → {new}"
