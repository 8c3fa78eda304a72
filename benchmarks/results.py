"""The results of a run: samples, and what they say together. JSON on disk."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

__all__ = ["Results", "Series"]


@dataclass(frozen=True)
class Series:
    """The values one figure had in the rounds of a run."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    @property
    def low(self) -> float:
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        return max(self.values, default=math.nan)

    def __bool__(self) -> bool:
        return bool(self.values)


@dataclass
class Results:
    """A run.

    Attributes:
        others: the share of all cores that other processes used meanwhile; None where the machine does not tell.
        samples: one dict a measurement: `scenario`, `case`, `client`, `round`, and either `figures`, `server` and
            `flags`, or `error`.
    """

    size: str
    command: str
    commit: str
    started: str
    machine: dict[str, Any]
    versions: dict[str, str]
    seconds: float = 0.0
    others: float | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, scenario: str, client: str, round_: int, result: dict[str, Any]) -> None:
        """Keep the result of a case."""
        if not result.get("skipped"):
            self.samples.append({"scenario": scenario, "client": client, "round": round_, **result})

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def select(self, scenario: str, case: str | None = None, client: str | None = None) -> list[dict[str, Any]]:
        """The samples of a scenario, in the order they were made."""
        return [
            sample
            for sample in self.samples
            if sample["scenario"] == scenario and case in (None, sample["case"]) and client in (None, sample["client"])
        ]

    def scenarios(self) -> list[str]:
        """The scenarios that have samples."""
        return _unique(sample["scenario"] for sample in self.samples)

    def cases(self, scenario: str) -> list[str]:
        """The cases of a scenario."""
        return _unique(sample["case"] for sample in self.select(scenario))

    def clients(self, scenario: str) -> list[str]:
        """The clients of a scenario."""
        return _unique(sample["client"] for sample in self.select(scenario))

    def series(self, scenario: str, case: str, client: str, metric: str) -> Series:
        """The values of a figure; none where every sample failed."""
        found = (sample.get("figures", {}).get(metric) for sample in self.select(scenario, case, client))
        return Series(tuple(value for value in found if value is not None))

    def median(self, scenario: str, case: str, client: str, metric: str) -> float:
        """The median of a figure, nan where there is none."""
        return self.series(scenario, case, client, metric).median

    def errors(self) -> list[dict[str, Any]]:
        """The samples that failed."""
        return [sample for sample in self.samples if "error" in sample]

    def flagged(self) -> list[dict[str, Any]]:
        """The samples that should not be believed without a look."""
        return [sample for sample in self.samples if sample.get("flags")]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
