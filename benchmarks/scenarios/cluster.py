"""cluster: the questions that a Dask cluster of two workers answers with a core, beside `Prefix.map`."""

import asyncio

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import OURS
from ..processes import answer


def cases(size: Size) -> list[Case]:
    questions = size.pick(4000, 1000, 40)
    return [Case("50 ms to the first token", {"questions": questions, "load": loads.late(50)})]


async def measure(client_name: str, port: int, case: Case) -> Sample:
    with Meter(port) as meter:
        figures = await asyncio.to_thread(answer, "clustered", {"port": port, **case.params})
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "cluster",
    "Clusters: Prefix.map in the workers of Dask",
    "Questions a second of CPU: two worker processes of Dask with `PrefixAsker`, scheduler and driver included, beside "
    "one process with `Prefix.map`, in turn within one run, 128 calls at once. Both keep sessions and connections from "
    "stretch to stretch. The workers share a context through an SQLite file.",
    (OURS,),
    cases,
    measure,
    (
        Metric("core_share", "questions a core, of Prefix.map's", "%", more=True),
        Metric("dask_core_qs", "Dask: questions a second of CPU", more=True),
        Metric("map_core_qs", "Prefix.map: questions a second of CPU", more=True),
        Metric("dask_qs", "Dask: questions a second", more=True),
        Metric("map_qs", "Prefix.map: questions a second", more=True),
    ),
    rounds=3,
)
