"""requests: plain calls, many at once."""

import asyncio
import time

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, UVLOOP, make
from ._streams import percentile, url


def cases(size: Size) -> list[Case]:
    at_once = size.pick((1, 50, 500), (1, 50), (3,))
    return [Case(f"{count} at once", {"at_once": count, "seconds": size.seconds / 2}) for count in at_once]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    at_once, seconds = case.params["at_once"], case.params["seconds"]
    load = loads.plain(case.params.get("text", 400))
    latencies: list[float] = []
    async with make(client_name, url(port), at_once) as client:
        for _ in range(2):  # warm: the connections, the code
            await asyncio.gather(*(client.call(load) for _ in range(at_once)))
        with Meter(port) as meter:
            end = time.perf_counter() + seconds

            async def caller() -> None:
                began, least = time.perf_counter(), 3
                while least > 0 or began < end:
                    await client.call(load)
                    now = time.perf_counter()
                    latencies.append(now - began)
                    began, least = now, least - 1

            await asyncio.gather(*(caller() for _ in range(at_once)))
    calls = len(latencies)
    figures = {
        "cpu_us": meter.cpu / calls * 1e6,
        "calls_s": calls / meter.wall,
        "p50_ms": percentile(latencies, 0.5) * 1e3,
        "p99_ms": percentile(latencies, 0.99) * 1e3,
        # one connection is the meter's own, for its second look into the books
        "reuse": (1 - (meter.server["accepted"] - 1) / calls) * 100,
    }
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "requests",
    "Requests: plain calls",
    "So many callers at once, each making its next call when it has its answer of about 800 bytes; warm connections.",
    tuple(name for name in NAMES if name != UVLOOP),
    cases,
    measure,
    (
        Metric("cpu_us", "CPU a call", "µs"),
        Metric("calls_s", "calls a second", "/s", more=True),
        Metric("p50_ms", "p50", "ms", over_floor=True),
        Metric("p99_ms", "p99", "ms", over_floor=True),
        Metric("reuse", "connections reused", "%", more=True),
    ),
    rounds=9,
)
