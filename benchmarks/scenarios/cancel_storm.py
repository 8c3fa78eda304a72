"""cancel_storm: streams cancelled at random points, and what the pool is like afterwards."""

import asyncio
import random
import time

from .. import loads
from ..accounting import Meter, server_stats
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, UVLOOP, Client, make
from ._streams import url

_RATE = 5.0
_SEED = 20241211
_PATIENCE = 30.0


def cases(size: Size) -> list[Case]:
    streams = size.pick(1000, 100, 10)
    return [Case(f"{streams:,} streams", {"streams": streams, "seconds": size.pick(2.0, 0.4, 0.1)})]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    streams, seconds = case.params["streams"], case.params["seconds"]
    dice = random.Random(_SEED)
    # From before the request leaves until long into the stream; a tenth at once, before they begin.
    moments = [0.0 if dice.random() < 0.1 else dice.uniform(0, seconds) for _ in range(streams)]
    async with make(client_name, url(port), streams) as client:
        await client.call(loads.plain())
        left_before = server_stats(port)["streaming"]
        with Meter(port) as meter:
            ended = await storm(client, moments)
        gone = await streams_gone(port, left_before)
        works = await still_works(client, min(streams, 100))
        stats = server_stats(port)
    figures = {
        "cpu_us": meter.cpu / streams * 1e6,
        "last_ms": ended * 1e3,
        "left_open": float(stats["streaming"] - left_before),
        "gone_ms": gone * 1e3,
        "works_after": float(works),
    }
    return Sample(figures, meter.server, meter.flags)


async def storm(client: Client, moments: list[float]) -> float:
    """Start all streams, cancel each at its moment; return the seconds from the last cancel until all have ended."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = [asyncio.create_task(client.stream(loads.paced(_RATE))) for _ in moments]
    for task, moment in zip(tasks, moments, strict=True):
        loop.call_at(began + moment, task.cancel)
    _, unended = await asyncio.wait(tasks, timeout=max(moments) + _PATIENCE)
    if unended:
        raise RuntimeError(f"{len(unended)} cancelled streams did not end")
    failed = [task for task in tasks if not task.cancelled()]
    if failed:
        raise RuntimeError(f"{len(failed)} streams ended otherwise: {failed[0].exception()!r}")
    return loop.time() - began - max(moments)


async def streams_gone(port: int, expected: int) -> float:
    """Seconds until the server sees no stream of ours, at most 5."""
    began = time.monotonic()
    while server_stats(port)["streaming"] > expected and time.monotonic() < began + 5:
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def still_works(client: Client, at_once: int) -> bool:
    """Whether streams and calls through the same client, many at once, still get their answers."""
    try:
        async with asyncio.timeout(_PATIENCE):
            before = client.chunks
            await asyncio.gather(*(client.stream(loads.whole(5)) for _ in range(at_once)))
            await asyncio.gather(*(client.call(loads.plain()) for _ in range(at_once)))
            return client.chunks == before + 5 * at_once
    except TimeoutError:
        return False


SCENARIO = Scenario(
    "cancel_storm",
    "Cancel storm",
    "Streams cancelled at random points (the same for all), then a hundred streams and calls at once through the same "
    "client. `left open` are streams the server still sees 5 s later: none, if the pool is intact.",
    tuple(name for name in NAMES if name != UVLOOP),
    cases,
    measure,
    (
        Metric("cpu_us", "CPU a stream", "µs"),
        Metric("last_ms", "all ended after the last cancel", "ms"),
        Metric("left_open", "left open"),
        Metric("works_after", "works afterwards (1: yes)", more=True),
    ),
)
