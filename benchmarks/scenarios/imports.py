"""imports: a fresh interpreter, until the import is done and until the first call is answered."""

import json
import statistics
import subprocess
import sys
from typing import Final

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import CONTEXT, FLOOR, KEY, NAMES, OURS, PROMPT, UVLOOP
from ._streams import url

_IMPORT: Final = {
    OURS: "import ctxcache",
    "openai": "import openai",
    "ark": "import volcenginesdkarkruntime",
    FLOOR: "import aiohttp",
}
_MESSAGES: Final = f"[{{'role': 'user', 'content': {PROMPT!r}}}]"
_LOAD: Final = loads.plain()
_FIRST_CALL: Final = {
    OURS: f"""
    async with ctxcache.AsyncSession({KEY!r}, URL) as session:
        await session.chat.create(context_id={CONTEXT!r}, model={_LOAD!r}, messages={_MESSAGES})
""",
    "openai": f"""
    async with openai.AsyncOpenAI(api_key={KEY!r}, base_url=URL + '/context') as client:
        await client.chat.completions.create(
            model={_LOAD!r}, messages={_MESSAGES}, extra_body={{'context_id': {CONTEXT!r}}})
""",
    "ark": f"""
    async with volcenginesdkarkruntime.AsyncArk(api_key={KEY!r}, base_url=URL) as client:
        await client.context.completions.create(context_id={CONTEXT!r}, model={_LOAD!r}, messages={_MESSAGES})
""",
    FLOOR: f"""
    async with aiohttp.ClientSession() as session:
        body = {{'context_id': {CONTEXT!r}, 'model': {_LOAD!r}, 'messages': {_MESSAGES}}}
        async with session.post(URL + '/context/chat/completions', json=body) as response:
            await response.read()
""",
}
_PROGRAM: Final = """
from time import perf_counter, process_time
URL = {url!r}
cpu, wall = process_time(), perf_counter()
{work}
cpu, wall = process_time() - cpu, perf_counter() - wall
import json, sys
print(json.dumps({{"cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3, "modules": len(sys.modules),
                  "imports_aiohttp": "aiohttp" in sys.modules}}))
"""


def cases(size: Size) -> list[Case]:
    repeats = size.pick(4, 1, 1)
    return [Case(name, {"work": name, "repeats": repeats}) for name in ("import", "first call answered")]


def work(client_name: str, what: str) -> str:
    """The program text that is measured."""
    if what == "import":
        return _IMPORT[client_name]
    body = _FIRST_CALL[client_name]
    return f"{_IMPORT[client_name]}\nimport asyncio\nasync def main():{body}\nasyncio.run(main())"


async def measure(client_name: str, port: int, case: Case) -> Sample:
    program = _PROGRAM.format(url=url(port), work=work(client_name, case.params["work"]))
    found: list[dict[str, float]] = []
    repeats = case.params["repeats"]  # of several, the first fills the disk's caches and does not count
    with Meter(port) as meter:
        for _ in range(repeats):
            # -c, not a file: nothing beside what the program imports is imported
            output = subprocess.check_output([sys.executable, "-c", program], timeout=120)
            found.append(json.loads(output))
    figures = {name: statistics.median(float(one[name]) for one in found[repeats > 1 :]) for name in found[0]}
    return Sample(figures, meter.server, meter.flags)


SCENARIO = Scenario(
    "imports",
    "Import",
    "A fresh interpreter: CPU from its first line until the import is done, and until a plain call has its answer.",
    tuple(name for name in NAMES if name != UVLOOP),
    cases,
    measure,
    (
        Metric("cpu_ms", "CPU", "ms"),
        Metric("wall_ms", "wall time", "ms"),
        Metric("modules", "modules"),
        Metric("imports_aiohttp", "aiohttp imported"),
    ),
)
