"""The vocabulary of the scenarios: sizes, cases, metrics, samples."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["FULL", "QUICK", "SIZES", "TINY", "Case", "Metric", "Sample", "Scenario", "Size"]


@dataclass(frozen=True)
class Size:
    """How much work a run does.

    Attributes:
        rounds: how often each client is measured.
        seconds: how long one measured stretch lasts, where a scenario goes by time.
    """

    name: str
    rounds: int
    seconds: float

    def pick(self, full: Any, quick: Any, tiny: Any) -> Any:
        """The value for this size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.name]


FULL: Final = Size("full", rounds=5, seconds=2.0)
QUICK: Final = Size("quick", rounds=1, seconds=0.25)
TINY: Final = Size("tiny", rounds=1, seconds=0.05)  # for tests: does it work at all
SIZES: Final = {size.name: size for size in (FULL, QUICK, TINY)}


@dataclass(frozen=True)
class Case:
    """One workload of a scenario.

    Attributes:
        params: all its measuring needs, and JSON.
        apart: measured in a fresh process.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    apart: bool = False


@dataclass(frozen=True)
class Metric:
    """One figure of a sample.

    Attributes:
        key: its name in the results.
        label: its heading.
        unit: behind the number; µ-seconds are "µs".
        more: whether more is better.
        over_floor: whether it is told as what is added to the floor's, too.
    """

    key: str
    label: str
    unit: str = ""
    more: bool = False
    over_floor: bool = False


@dataclass
class Sample:
    """What one measurement of one case of one client found."""

    figures: dict[str, float]
    server: dict[str, float] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def _server_alone(client: str, port: int, cases: list[Case]) -> AbstractContextManager[int]:
    return nullcontext(port)


@dataclass(frozen=True)
class Scenario:
    """A question, and how it is answered.

    Attributes:
        about: what is measured, in a sentence or two, for the report.
        clients: who takes part.
        cases: the workloads at a size.
        measure: measures a case of a client against the server at a port, in the worker's process;
            None where the case is none for that client.
        metrics: the figures, the first being the one that counts.
        setting: what stands meanwhile between a client and the server at a port, for all cases of a process; `measure`
            is given what it yields instead of the port.
        rounds: how often each client is measured in a full run; None: as the size says.
        patience: seconds for the cases of one process; who takes longer is not asked again in later rounds.
    """

    name: str
    title: str
    about: str
    clients: tuple[str, ...]
    cases: Callable[[Size], list[Case]]
    measure: Callable[[str, Any, Case], Awaitable[Sample | None]]
    metrics: tuple[Metric, ...]
    setting: Callable[[str, int, list[Case]], AbstractContextManager[Any]] = _server_alone
    rounds: int | None = None
    patience: float = 600.0
