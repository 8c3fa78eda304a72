"""state: what a turn, a create and a first look cost a gateway, by where contexts are kept and how long they are."""

import contextlib
import itertools
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from ctxcache import system, user
from ctxcache.gateway.contexts import Contexts
from ctxcache.gateway.rules.clients import ONLY
from ctxcache.gateway.rules.quota import Quota
from ctxcache.gateway.rules.table import ContextTable
from ctxcache.gateway.state import RedisState, SQLiteState, State
from ctxcache.models import ChatRequest, ContextRequest

from ..accounting import Meter, cpu_seconds
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import OURS

_MODEL: Final = "model"
_WINDOW: Final = 1_000_000_000
_TEXT: Final = "What is guaranteed, and for how long? " * 5  # some 50 tokens
_STORES: Final = ("memory", "SQLite", "Redis")


def cases(size: Size) -> list[Case]:
    turns = size.pick((20, 200, 2000), (20, 2000), (3,))
    count = size.pick(500, 100, 3)
    return [
        Case(f"{store}, {n:,} turns", {"store": store, "turns": n, "count": count}) for store in _STORES for n in turns
    ]


async def measure(client_name: str, port: int, case: Case) -> Sample | None:
    params = case.params
    if params["store"] == "Redis" and _redis_server() is None:
        return None
    with (
        tempfile.TemporaryDirectory() as folder,
        _store(params["store"], Path(folder)) as make,
        Meter(port) as meter,
    ):
        figures = await _measured(make, params["turns"], params["count"])
    return Sample(figures, meter.server, meter.flags)


async def _measured(make: Callable[[], State | None], turns: int, count: int) -> dict[str, float]:
    contexts, state = _contexts(make)
    await contexts.start()
    create = ContextRequest(model=_MODEL, messages=[system(_TEXT)])
    created = contexts.table.create(create)
    await contexts.keep(created, contexts.table.measure(create), ONLY)
    request = ChatRequest(context_id=created.id, model=_MODEL, messages=[user(_TEXT)])

    async def turn() -> None:
        chat = await contexts.begin(request, contexts.table.measure(request), ONLY)
        chat.replies[0].feed(_TEXT)
        chat.replies[0].end()
        await contexts.complete(chat)
        contexts.abandon(chat)

    async def put() -> None:
        context = contexts.table.create(create)
        await contexts.keep(context, contexts.table.measure(create), ONLY)

    for _ in range(turns):
        await turn()
    figures = {**await _cost("turn", turn, count), **await _cost("put", put, count)}
    await contexts.aclose()
    if state is not None:  # another gateway, to which the context is new
        contexts, _ = _contexts(make)
        before = time.perf_counter()
        await contexts.start()
        chat = await contexts.begin(request, contexts.table.measure(request), ONLY)
        figures["get_ms"] = (time.perf_counter() - before) * 1e3
        contexts.abandon(chat)
        await contexts.aclose()
    return figures


def _contexts(make: Callable[[], State | None]) -> tuple[Contexts, State | None]:
    state = make()
    numbers = itertools.count()
    quota = Quota(max_contexts=_WINDOW, max_memory=_WINDOW, max_context_memory=_WINDOW)
    table = ContextTable({_MODEL: _WINDOW}, time.time, lambda below: next(numbers) % below, quota)
    return Contexts(table, state, _WINDOW), state


async def _cost(name: str, work: Callable[[], Awaitable[None]], count: int) -> dict[str, float]:
    began, before = time.perf_counter(), cpu_seconds()
    for _ in range(count):
        await work()
    cpu, taken = cpu_seconds() - before, time.perf_counter() - began
    return {f"{name}_cpu_us": cpu / count * 1e6, f"{name}_ms": taken / count * 1e3}


@contextlib.contextmanager
def _store(name: str, folder: Path) -> Iterator[Callable[[], State | None]]:
    if name == "memory":
        yield lambda: None
    elif name == "SQLite":
        yield lambda: SQLiteState(folder / "contexts.db")
    else:
        with _redis(folder) as url:
            yield lambda: RedisState(url)


def _redis_server() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "")
    with subprocess.Popen([str(_redis_server()), *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        next(line for line in server.stdout if "ready to accept connections" in line.lower())
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()


SCENARIO = Scenario(
    "state",
    "What it costs a gateway to keep contexts",
    "A turn on a session with a history of some length, a create, and the first chat of a gateway that has started "
    "anew, without HTTP and engine. CPU is the gateway's alone.",
    (OURS,),
    cases,
    measure,
    (
        Metric("turn_cpu_us", "CPU a turn", "µs"),
        Metric("turn_ms", "time a turn", "ms"),
        Metric("put_cpu_us", "CPU a create", "µs"),
        Metric("put_ms", "time a create", "ms"),
        Metric("get_ms", "time to start and begin", "ms"),
    ),
)
