"""first_token: how long until the first chunk of a stream is in the caller's hand."""

import time

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, UVLOOP, Client, make
from ._streams import percentile, url

_CHUNKS = 10


def cases(size: Size) -> list[Case]:
    params = {"seconds": size.seconds, "least": size.pick(50, 20, 2)}
    return [Case("warm", {**params, "fresh": False}), Case("first call of a client", {**params, "fresh": True})]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    waits: list[float] = []
    load = loads.whole(case.params.get("chunks", _CHUNKS))
    async with make(client_name, url(port), 1) as client:
        await to_first_chunk(client, load)
        with Meter(port) as meter:
            end = time.monotonic() + case.params["seconds"]
            while len(waits) < case.params["least"] or time.monotonic() < end:
                if case.params["fresh"]:
                    async with make(client_name, url(port), 1) as fresh:
                        waits.append(await to_first_chunk(fresh, load))
                else:
                    waits.append(await to_first_chunk(client, load))
    figures = {
        "p50_ms": percentile(waits, 0.5) * 1e3,
        "p99_ms": percentile(waits, 0.99) * 1e3,
        "cpu_us": meter.cpu / len(waits) * 1e6,
    }
    return Sample(figures, meter.server, meter.flags)


async def to_first_chunk(client: Client, load: str) -> float:
    """The seconds from the call to its first chunk. The rest is read, too, so that the connection is kept."""
    came: list[float] = []

    def note(_: int) -> None:
        if not came:
            came.append(time.perf_counter())

    began = time.perf_counter()
    await client.stamped(load, note)
    return came[0] - began


SCENARIO = Scenario(
    "first_token",
    "First token",
    f"The time from the call to its first chunk, of {_CHUNKS} sent at once; one call at a time, over a warm "
    "connection, or the first of a client made for it.",
    tuple(name for name in NAMES if name != UVLOOP),
    cases,
    measure,
    (
        Metric("p50_ms", "p50", "ms", over_floor=True),
        Metric("p99_ms", "p99", "ms", over_floor=True),
        Metric("cpu_us", "CPU a stream of 10", "µs"),
    ),
)
