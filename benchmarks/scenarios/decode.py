"""decode: bytes in memory to events, and to typed chunks, over the named workloads."""

import time
from collections import deque
from typing import Final

from ..accounting import Meter
from ..cases import FULL, Case, Metric, Sample, Scenario, Size
from ..clients import OURS
from ..decoders import DECODERS, HTTPX_SSE, essence, expected
from ..sse_workloads import WORKLOADS

SMALL: Final = {"1 MiB line dripped in": [65_536], "1,000-line data": [2, 1000]}  # for quick runs; of others, chunks


def cases(size: Size) -> list[Case]:
    params = {"seconds": size.seconds / 4}
    return [
        Case(f"{name} → {output}", params | {"workload": name, "output": output, "size": numbers(size, name)})
        for name in WORKLOADS
        for output in DECODERS
    ]


def numbers(size: Size, workload: str) -> list[int]:
    """How large the workload is; none: as large as its name says."""
    return [] if size is FULL else SMALL.get(workload, [300])


async def measure(client_name: str, port: int, case: Case) -> Sample | None:
    output = case.params["output"]
    decode = DECODERS[output].get(client_name)
    if decode is None:  # some clients have typed chunks only
        return None
    workload = WORKLOADS[case.params["workload"]](*case.params["size"])
    if list(map(essence, decode(workload.parts))) != expected(output, workload.data):
        raise RuntimeError(f"{client_name} decodes {case.name} to something else")
    passes = 0
    with Meter(port) as meter:
        end = time.monotonic() + case.params["seconds"]
        while not passes or time.monotonic() < end:
            deque(decode(workload.parts), maxlen=0)
            passes += 1
    events = passes * len(workload.data)
    figures = {
        "events_s": events / meter.cpu,
        "cpu_us": meter.cpu / events * 1e6,
        "mb_s": passes * workload.bytes / meter.cpu / 1e6,
        "cpu_pass_ms": meter.cpu / passes * 1e3,
    }
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "decode",
    "Decode, in memory",
    "Bytes as reads would bring them, to events and to chunks; outputs are compared before anything is timed. For "
    "httpx-sse a chunk is the JSON its event's data parses to.",
    (OURS, HTTPX_SSE, "openai", "ark"),
    cases,
    measure,
    (Metric("cpu_us", "CPU an event", "µs"), Metric("events_s", "events a CPU second", "/s", more=True)),
)
