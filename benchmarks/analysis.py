"""What the samples of a run say: ratios within a round, exponents, numbers for people."""

import math
from collections.abc import Callable, Sequence
from operator import sub, truediv

from .clients import FLOOR, PEERS
from .results import Results, Series

__all__ = ["added", "exponent", "faster_peer", "paired", "ratio", "shown", "shown_series"]


def paired(
    results: Results, scenario: str, case: str, metric: str, pair: tuple[str, str], how: Callable[[float, float], float]
) -> Series:
    """Two clients' figures joined round by round, so that what slowed both in a round drops out."""
    first, second = (
        {
            sample["round"]: sample["figures"][metric]
            for sample in results.select(scenario, case, client)
            if metric in sample.get("figures", {})
        }
        for client in pair
    )
    return Series(tuple(how(first[round_], second[round_]) for round_ in sorted(first.keys() & second.keys())))


def ratio(results: Results, scenario: str, case: str, metric: str, pair: tuple[str, str]) -> Series:
    """How many times the second client's figure the first one's is."""
    return paired(results, scenario, case, metric, pair, lambda a, b: truediv(a, b) if b else math.inf)


def added(results: Results, scenario: str, case: str, metric: str, client: str) -> Series:
    """What the client's figure is above the floor's."""
    return paired(results, scenario, case, metric, (client, FLOOR), sub)


def faster_peer(results: Results, scenario: str, case: str, metric: str, *, more: bool = False) -> str | None:
    """The peer with the better median; None if there is none."""
    medians = {peer: results.median(scenario, case, peer, metric) for peer in PEERS}
    there = {peer: value for peer, value in medians.items() if not math.isnan(value)}
    return (max if more else min)(there, key=there.__getitem__) if there else None


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The k of the power law cost = c · size^k that fits best (least squares of the logarithms)."""
    points = [
        (math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True) if size > 0 and cost > 0
    ]
    if len(points) < 2:
        return math.nan
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else math.nan


def shown(value: float, significant: int = 3) -> str:
    """A number in three significant digits, or as many as given; thousands with commas."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{round(value, digits):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text and digits > 2 else text


def shown_series(series: Series) -> str:
    """The median, and the range where there were several rounds."""
    if not series:
        return "–"
    if len(series.values) == 1 or shown(series.low) == shown(series.high):
        return shown(series.median)
    return f"{shown(series.median)} ({shown(series.low)}–{shown(series.high)})"
