"""The growth curves of a run: those of the growth scenario, and those that other scenarios' cases make."""

from collections.abc import Iterator
from dataclasses import dataclass

from .analysis import exponent
from .results import Results
from .scenarios.growth import CURVES

__all__ = ["Line", "lines"]

# Scenarios whose cases are sizes: scenario, figure for each unit of the work, unit, axis, last word of the case's name.
_BY_CASE = (
    ("memory", "kb_stream", "KB", "open streams", "open"),
    ("paced", "core", "% of a core", "streams at once", "at once"),
    ("relay", "core", "% of a core", "streams at once", "streams"),
    ("relay", "cpu_answer_ms", "ms", "chunks of an answer", "chunks an answer"),
)


@dataclass(frozen=True)
class Line:
    """One client's costs at the sizes of one curve, medians of the rounds."""

    curve: str
    client: str
    unit: str
    sizes: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """That of the power law fitted to all sizes."""
        return exponent(self.sizes, self.costs)

    @property
    def last_doubling(self) -> float:
        """What the exponent is between the two largest sizes: 1 is linear there."""
        return exponent(self.sizes[-2:], self.costs[-2:])


def lines(results: Results) -> list[Line]:
    """All curves of a run, for each client that has at least two sizes."""
    return [line for line in (*_measured(results), *_from_cases(results)) if len(line.sizes) > 1]


def _measured(results: Results) -> Iterator[Line]:
    for curve in CURVES:
        for client in results.clients("growth"):
            found = {
                size: series.median
                for size in curve.sizes
                if (series := results.series("growth", f"{curve.name}: {size:,}", client, "cost"))
            }
            yield Line(curve.name, client, curve.unit, tuple(map(float, found)), tuple(found.values()))


def _from_cases(results: Results) -> Iterator[Line]:
    for scenario, metric, unit, axis, ending in _BY_CASE:
        for client in results.clients(scenario):
            found = {}
            for case in results.cases(scenario):
                number = case.removesuffix(ending).strip().replace(",", "")
                if number.isdigit() and (series := results.series(scenario, case, client, metric)):
                    found[float(number)] = series.median * (float(number) if metric == "kb_stream" else 1)
            yield Line(f"{scenario}: {axis}", client, unit, tuple(found), tuple(found.values()))
