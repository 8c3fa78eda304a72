"""The process that measures one client: `python -m benchmarks.worker`. A job on stdin, a line a case on stdout."""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from . import accounting, scenarios
from .cases import Case
from .clients import UVLOOP
from .server import raise_file_limit


async def work(job: dict[str, Any]) -> None:
    """Measure the cases of a job one after another; an error of one is its result."""
    scenario = scenarios.load(job["scenario"])
    cases = [Case(**case) for case in job["cases"]]
    with scenario.setting(job["client"], job["port"], cases) as setting:
        for case in cases:
            result: dict[str, Any] = {"case": case.name}
            try:
                sample = await scenario.measure(job["client"], setting, case)
            except Exception as error:
                result["error"] = f"{type(error).__name__}: {error}"[:300]
            else:
                if sample is None:
                    result["skipped"] = True
                else:
                    result.update(asdict(sample))
            print(json.dumps(result), flush=True)


def loop_factory(client: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop the client runs on."""
    if client == UVLOOP:
        import uvloop

        made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return made
    return asyncio.new_event_loop


def main() -> None:
    """Do the job that stdin names."""
    job = json.loads(sys.stdin.readline())
    accounting.pin(job["cores"])
    raise_file_limit()
    with asyncio.Runner(loop_factory=loop_factory(job["client"])) as runner:
        runner.run(work(job))


if __name__ == "__main__":
    main()
