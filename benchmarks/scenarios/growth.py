"""growth: what each scenario costs against the size of its work."""

import time
from dataclasses import dataclass
from typing import Any, Final

from .. import folding, scenarios
from ..accounting import Meter
from ..cases import FULL, Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, PEERS, UVLOOP
from ..decoders import HTTPX_SSE


@dataclass(frozen=True)
class Curve:
    """A cost against a size.

    Attributes:
        of: the scenario whose `measure` finds the cost, or `fold`.
        axis: what the size counts.
        cost: the figure of that scenario, in `unit`.
        sizes: the sizes of a full run; a quick one takes the first few.
        peers: the largest size the peers take part in, beyond which they take minutes; in a quick run, in none.
        fixed: the other parameters of the case.
        size: the name of the parameter that the size is.
    """

    of: str
    axis: str
    cost: str
    unit: str
    sizes: tuple[int, ...]
    size: str
    fixed: dict[str, Any]
    peers: int = 10**9

    @property
    def name(self) -> str:
        return f"{self.of}: {self.axis}"

    def params(self, size: int, seconds: float) -> dict[str, Any]:
        """The parameters of the scenario's case at a size."""
        value = [size] if self.of == "decode" else size
        return {**self.fixed, self.size: value, "seconds": seconds}


_TOKENS = {"workload": "token stream", "output": "chunks"}
_LINE = {"workload": "1 MiB line dripped in", "output": "chunks"}
CURVES: Final = (
    Curve(
        "decode", "chunks", "cpu_pass_ms", "ms", (500, 1000, 2000, 4000, 8000, 16_000, 32_000), "size", _TOKENS, 8000
    ),
    Curve(
        "decode", "bytes of one event", "cpu_pass_ms", "ms", tuple(2**n for n in range(16, 24)), "size", _LINE, 2**21
    ),
    Curve("stream", "chunks", "cpu_answer_ms", "ms", (500, 1000, 2000, 4000, 8000, 16_000, 32_000), "chunks", {}, 8000),
    Curve(
        "stream",
        "bytes of one chunk",
        "cpu_answer_ms",
        "ms",
        tuple(2**n for n in range(10, 19)),
        "text",
        {"chunks": 20},
    ),
    Curve(
        "requests", "bytes of the answer", "cpu_us", "µs", tuple(2**n for n in range(10, 21)), "text", {"at_once": 1}
    ),
    Curve("requests", "calls at once", "cpu_us", "µs", (1, 5, 50, 500), "at_once", {}),
    Curve(
        "first_token",
        "chunks that follow",
        "p50_ms",
        "ms",
        (10, 100, 1000, 10_000),
        "chunks",
        {"least": 5, "fresh": False},
        1000,
    ),
    Curve("cancel_storm", "streams", "cpu_us", "µs", (62, 125, 250, 500, 1000), "streams", {}),
    Curve("fold", "chunks", "cpu_ms", "ms", (1000, 3125, 6250, 12_500, 25_000, 50_000, 100_000), "chunks", {}, 6250),
)
# Costs told for each unit of the work; times its size they are the cost of all of it.
PER_UNIT: Final = frozenset({"requests: calls at once", "cancel_storm: streams"})


def cases(size: Size) -> list[Case]:
    kept = size.pick(100, 3, 2)
    params = {"seconds": size.seconds / 5, "peers": size is FULL}
    return [
        Case(f"{curve.name}: {n:,}", {"curve": number, "size": n, **params})
        for number, curve in enumerate(CURVES)
        for n in curve.sizes[:kept]
    ]


async def measure(client_name: str, port: int, case: Case) -> Sample | None:
    curve, size = CURVES[case.params["curve"]], case.params["size"]
    if client_name in PEERS and (size > curve.peers or not case.params["peers"]):
        return None
    params = curve.params(size, case.params["seconds"])
    if curve.of == "fold":
        found = measure_fold(client_name, port, size, params["seconds"])
    else:
        scenario = scenarios.load(curve.of)
        if client_name not in scenario.clients:
            return None
        found = await scenario.measure(client_name, port, Case(case.name, params))
    if found is None:
        return None
    cost = found.figures[curve.cost] * (size if curve.name in PER_UNIT else 1)
    return Sample({"cost": cost, "size": float(size)}, found.server, found.flags)


def measure_fold(client_name: str, port: int, count: int, seconds: float) -> Sample | None:
    """Fold chunks that are decoded already."""
    fold = folding.prepared(client_name, count)
    if fold is None:
        return None
    times = 0
    with Meter(port) as meter:
        end = time.monotonic() + seconds
        while not times or time.monotonic() < end:
            fold()
            times += 1
    return Sample({"cpu_ms": meter.cpu / times * 1e3}, meter.server, meter.flags)


SCENARIO = Scenario(
    "growth",
    "Cost grows with work",
    "Each cost against the size of its work, from the smallest to the largest; the exponent is that of the power law "
    "fitted to all sizes: 1 is linear, less is a fixed part that weighs less and less.",
    (*(name for name in NAMES if name != UVLOOP), HTTPX_SSE),
    cases,
    measure,
    (Metric("cost", "CPU"),),
    rounds=3,
)
