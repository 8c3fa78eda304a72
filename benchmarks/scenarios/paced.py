"""paced: many streams at once, each chunk its own write."""

import asyncio
from typing import Final

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, make
from ._streams import Streams, url

RATE: Final = 50  # chunks a second of one stream, as of a fast model
DENSE: Final = (50, 1000)  # streams, chunks a second of each: as many chunks a second as 1,000 streams have
OPENING: Final = 60.0
SETTLE: Final = 0.5
SPARE: Final = 1.0  # seconds for which more is sent: then it ends, or who does not keep up would never be done


def cases(size: Size) -> list[Case]:
    at_once = size.pick((1, 10, 100, 1000), (1, 100), (2,))
    dense = size.pick([DENSE], [DENSE], [])
    return [
        Case(name(streams, rate), {"streams": streams, "rate": rate, "seconds": size.seconds})
        for streams, rate in (*((streams, RATE) for streams in at_once), *dense)
    ]


def name(streams: int, rate: int) -> str:
    """The name of a case."""
    return f"{streams:,} at once" if rate == RATE else f"{streams:,} at once, {rate:,} chunks/s each"


async def measure(client_name: str, port: int, case: Case) -> Sample:
    streams, rate, seconds = (case.params[name] for name in ("streams", "rate", "seconds"))
    load = loads.gated(rate, int(rate * (SETTLE + seconds + SPARE)))
    async with make(client_name, url(port), streams) as client:
        running = Streams(client, port)
        if not await running.open(streams, lambda: client.stream(load), OPENING):
            raise RuntimeError(f"{streams} streams were not open within {OPENING:g} s")
        running.go()
        await asyncio.sleep(SETTLE)
        before = client.chunks
        with Meter(port) as meter:
            await asyncio.sleep(seconds)
        chunks = client.chunks - before
        if not chunks:
            raise RuntimeError(f"not one chunk was read in {seconds:g} s")
        running.check()
        await running.close()
    figures = {
        "cpu_us": meter.cpu / chunks * 1e6,
        "core": meter.cpu / meter.wall * 100,
        "kept_up": chunks / (streams * rate * meter.wall) * 100,
    }
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "paced",
    "Paced: many streams at once",
    f"Streams of {RATE} chunks a second, each chunk its own write, once all are open; and {DENSE[0]} streams so fast "
    "that the core hardly sleeps. With few streams it sleeps between any two chunks, and waking it, with cold caches, "
    "is most of what a chunk costs any client. Who does not keep up reads several at once, which makes each cheaper.",
    NAMES,
    cases,
    measure,
    (
        Metric("cpu_us", "CPU a chunk", "µs"),
        Metric("core", "of a core used", "%"),
        Metric("kept_up", "of the chunks due were read", "%", more=True),
    ),
)
