"""memory: what an open stream holds, and what 10,000 that came and went leave behind."""

import asyncio
import gc
import itertools

from .. import loads
from ..accounting import Meter, rss_kb
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import NAMES, PEERS, UVLOOP, Client, make
from ..server import raise_file_limit
from ._streams import Streams, url

_CHUNKS = 2  # that each open stream has read
_SPARE_FILES = 200
_OPENING = 60.0
_AT_ONCE = 100
_PEERS_MOST = 1000  # open: httpx looks through all connections for each, and takes a quarter of an hour for 10,000


def cases(size: Size) -> list[Case]:
    most = raise_file_limit() - _SPARE_FILES
    opened = [count for count in size.pick((100, 1000, 10_000), (200,), (10,)) if count <= most]
    gone = size.pick(10_000, 300, 20)
    return [
        *(Case(f"{count:,} open", {"open": count}, apart=True) for count in opened),
        Case(f"{gone:,} came and went", {"gone": gone}, apart=True),
    ]


async def measure(client_name: str, port: int, case: Case) -> Sample | None:
    count = case.params.get("open", 0)
    if client_name in PEERS and count > _PEERS_MOST:
        return None
    raise_file_limit()
    async with make(client_name, url(port), count) as client:
        await pass_by(client, size_of_warm_up(case))
        if count:
            return await measure_open(client, port, count)
        return await measure_gone(client, port, case.params["gone"])


def size_of_warm_up(case: Case) -> int:
    """Streams before the first look: what is made once, such as pools and caches, is no stream's."""
    return int(max(20, case.params["gone"] // 10)) if "gone" in case.params else 20


async def measure_open(client: Client, port: int, count: int) -> Sample:
    before, read = rss_kb(), client.chunks
    load = loads.hold(_CHUNKS)
    with Meter(port) as meter:
        streams = Streams(client, port)
        if not await streams.open(count, lambda: client.stream(load), _OPENING):
            raise RuntimeError(f"{count} streams were not open within {_OPENING:g} s")
        await streams.chunks(read + count * _CHUNKS, _OPENING)
        held = rss_kb() - before
        await streams.close()
    await asyncio.sleep(0)
    figures = {"kb_stream": held / count, "total_mb": held / 1024, "kept_kb": rss_kb() - before}
    return Sample(figures, meter.server, meter.flags)


async def measure_gone(client: Client, port: int, count: int) -> Sample:
    before = rss_kb()
    objects = len(gc.get_objects())
    with Meter(port) as meter:
        await pass_by(client, count)
    kept = rss_kb() - before
    figures = {"kept_kb": kept, "kept_objects": len(gc.get_objects()) - objects, "kb_stream": kept / count}
    return Sample(figures, meter.server, meter.flags)


async def pass_by(client: Client, count: int) -> None:
    """Read that many short streams to their end."""
    left = itertools.count(1)

    async def reader() -> None:
        while next(left) <= count:
            await client.stream(loads.whole(5))

    await asyncio.gather(*(reader() for _ in range(min(_AT_ONCE, count))))


SCENARIO = Scenario(
    "memory",
    "Memory",
    "Resident memory that open streams add, each having read two chunks and waiting for the next; and what is left "
    "after streams of 5 chunks came and went, 100 at once. What is kept when all are closed is mostly the allocator's. "
    f"The peers open {_PEERS_MOST:,} at most, since 10,000 would take them a quarter of an hour.",
    tuple(name for name in NAMES if name != UVLOOP),
    cases,
    measure,
    (
        Metric("kb_stream", "memory a stream", "KB"),
        Metric("kept_kb", "kept afterwards", "KB"),
        Metric("kept_objects", "objects kept afterwards"),
    ),
    rounds=3,
    patience=120.0,
)
