"""A program of the scenario `cluster`: asks by `Prefix.map` and by Dask in turn, and prints what that took."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from statistics import median
from typing import Any, Final

from ctxcache import AsyncSession, Prefix, system
from ctxcache.cluster import PrefixAsker

from .accounting import cpu_seconds
from .clients import KEY, PROMPT

_STRETCHES: Final = 5  # in turn, so that a machine that changes its speed changes it for both ways
_WORKERS: Final = 2
_AT_ONCE: Final = 64  # in each worker
_BATCH: Final = 250
_MESSAGES: Final = (system("The manual."),)

Ask = Callable[[int], float]  # asks so many questions; gives the CPU seconds of all processes


class _Mapper:
    """Asks by `Prefix.map`, in a process of its own that keeps session and context, as a worker of Dask does."""

    def __init__(self, load: str, url: str) -> None:
        self._runner = asyncio.Runner()
        self._session = AsyncSession(KEY, url)
        self._prefix = Prefix(self._session, model=load, messages=_MESSAGES)

    async def _ask(self, count: int) -> None:
        async for answer in self._prefix.map([PROMPT] * count, concurrency=_AT_ONCE * _WORKERS):
            if answer.error is not None:
                raise answer.error

    def ask(self, count: int) -> float:
        """Ask so many questions; return the CPU seconds."""
        before = cpu_seconds()
        self._runner.run(self._ask(count))
        return cpu_seconds() - before

    def close(self) -> None:
        """End the session."""
        self._runner.run(self._session.aclose())
        self._runner.close()


_mappers: list[_Mapper] = []  # in the process of the map: the one that is there


def _open_mapper(load: str, url: str) -> None:
    _mappers.append(_Mapper(load, url))


def _map(count: int) -> float:
    return _mappers[0].ask(count)


def _close_mapper() -> None:
    _mappers.pop().close()


@contextmanager
def _mapping(load: str, url: str) -> Iterator[Ask]:
    """Yield a way to ask by `Prefix.map`."""
    with ProcessPoolExecutor(1, get_context("spawn"), _open_mapper, (load, url)) as process:
        yield lambda count: process.submit(_map, count).result()
        process.submit(_close_mapper).result()


def _by_dask(client: Any, asker: PrefixAsker, count: int) -> float:
    before = cpu_seconds() + sum(client.run(cpu_seconds).values())
    sizes = [min(_BATCH, count - start) for start in range(0, count, _BATCH)]
    for answered in client.gather(client.map(asker, [{"question": [PROMPT] * size} for size in sizes], pure=False)):
        if any(answered["error"]):
            raise RuntimeError(next(filter(None, answered["error"])))
    return cpu_seconds() + float(sum(client.run(cpu_seconds).values())) - before


def _measured(ways: dict[str, Ask], questions: int) -> dict[str, float]:
    """The medians of questions a second of CPU, and of time."""
    by_cpu: dict[str, list[float]] = {name: [] for name in ways}
    by_time: dict[str, list[float]] = {name: [] for name in ways}
    for ask in ways.values():
        ask(questions // 4)  # warm: the connections, the code, the context, the limit found
    for _ in range(_STRETCHES):
        for name, ask in ways.items():
            began = time.perf_counter()
            by_cpu[name].append(questions / ask(questions))
            by_time[name].append(questions / (time.perf_counter() - began))
    figures = {f"{name}_core_qs": median(found) for name, found in by_cpu.items()}
    figures |= {f"{name}_qs": median(found) for name, found in by_time.items()}
    if "dask" in ways:
        figures["core_share"] = median(
            dask / plain * 100 for dask, plain in zip(by_cpu["dask"], by_cpu["map"], strict=True)
        )
    return figures


def main() -> None:
    """Measure the job that stdin names; without Dask, `Prefix.map` alone."""
    job = json.loads(sys.stdin.read())
    load, url = job["load"], f"http://127.0.0.1:{job['port']}/v1"
    with _mapping(load, url) as ask:
        figures = _measure(load, url, job["questions"], ask)
    print(json.dumps(figures))


def _measure(load: str, url: str, questions: int, ask: Ask) -> dict[str, float]:
    if find_spec("distributed") is None:
        return _measured({"map": ask}, questions)
    from distributed import Client, LocalCluster

    os.environ["CTXCACHE_API_KEY"] = KEY
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=_WORKERS, threads_per_worker=4, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        store = f"sqlite://{folder}/contexts.db"
        asker = PrefixAsker(model=load, messages=_MESSAGES, store=store, base_url=url, concurrency=_AT_ONCE)
        return _measured({"map": ask, "dask": partial(_by_dask, client, asker)}, questions)


if __name__ == "__main__":
    main()
