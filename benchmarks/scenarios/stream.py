"""stream: 2,000-chunk answers as fast as the socket gives, one after another."""

import time

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, make
from ._streams import url


def cases(size: Size) -> list[Case]:
    chunks = size.pick(2000, 2000, 50)
    return [Case(f"{chunks:,} chunks", {"chunks": chunks, "seconds": size.seconds / 2})]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    load = loads.whole(case.params["chunks"], case.params.get("text", loads.TEXT))
    async with make(client_name, url(port), 1) as client:
        await client.stream(load)  # warm: the connection, the code
        before, answers = client.chunks, 0
        with Meter(port) as meter:
            end = time.monotonic() + case.params["seconds"]
            while not answers or time.monotonic() < end:
                await client.stream(load)
                answers += 1
        chunks = client.chunks - before
    if chunks != answers * case.params["chunks"]:
        raise RuntimeError(f"{chunks} chunks of {answers} answers")
    figures = {
        "cpu_us": meter.cpu / chunks * 1e6,
        "wall_us": meter.wall / chunks * 1e6,
        "chunks_s": chunks / meter.wall,
        "cpu_answer_ms": meter.cpu / answers * 1e3,
    }
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "stream",
    "Stream: as fast as the socket gives",
    "Answers of 2,000 chunks, written at once, read one after another to their end.",
    NAMES,
    cases,
    measure,
    (
        Metric("cpu_us", "CPU a chunk", "µs"),
        Metric("wall_us", "wall time a chunk", "µs"),
        Metric("chunks_s", "chunks a second", "/s", more=True),
    ),
    rounds=15,
)
