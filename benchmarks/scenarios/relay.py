"""relay: the CPU, the wait and the memory that a relay between clients and an OpenAI-compatible server takes."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .. import loads
from ..accounting import Meter, pinned, server_stats
from ..cases import FULL, Case, Metric, Sample, Scenario, Size
from ..relays import NAMES
from ..relays.reading import Readers, first_chunk
from ..relays.running import Running, question, relay
from ._streams import percentile

RATE: Final = 100  # chunks a second of one stream, as of a fast model
SETTLE: Final = 0.5
SPARE: Final = 1.0  # seconds for which more is sent: then it ends, or a relay that does not keep up would never be done
# A relay that is far behind begins its streams one after another, and writes in bursts: chunks of each stream, on
# average, that come before the measuring begins, and within.
_BEGUN: Final = 5
_LEAST: Final = 20
_ANSWERS: Final = 10  # at once, where whole answers are measured
_ANSWER_RATE: Final = 250
_HELD: Final = 2  # chunks that each open stream has brought
_WARM: Final = 20  # streams before the first look at the memory: what is made once is no stream's
_PATIENCE: Final = 60.0
_POLL: Final = 0.005


def cases(size: Size) -> list[Case]:
    chunks = size.pick((250, 1000), (50, 200), (5, 10))
    many = size.pick((50, 200), (50, 100), (2, 4))
    opened = size.pick(1000, 200, 3)
    gated = loads.gated(RATE, int(RATE * (SETTLE + size.seconds + SPARE)))
    return [
        # First, while the relay is fresh; in a full run the relay is started for this case alone.
        Case(f"{opened:,} open", {"open": opened, "load": loads.hold(_HELD)}, apart=size is FULL),
        Case("first token", {"calls": size.pick(200, 40, 2), "load": loads.whole(10)}),
        *(Case(f"{n:,} chunks an answer", {"chunks": n, "load": loads.paced(_ANSWER_RATE, n)}) for n in chunks),
        *(Case(f"{n} streams", {"streams": n, "seconds": size.seconds, "load": gated}) for n in many),
    ]


@contextmanager
def setting(name: str, port: int, measured: list[Case]) -> Iterator[tuple[int, Running]]:
    """Run the relay for all cases of a process, on the core that is the client's otherwise."""
    with relay(name, port, [case.params["load"] for case in measured]) as running:
        others = os.sched_getaffinity(os.getppid()) - os.sched_getaffinity(0)  # where the run and the server are
        with pinned(sorted(others)):
            yield port, running


async def measure(client_name: str, at: tuple[int, Running], case: Case) -> Sample:
    port, running = at
    params, load = case.params, case.params["load"]
    if "streams" in params:
        return streams(port, running, load, params["streams"], params["seconds"])
    if "chunks" in params:
        return answers(port, running, load, params["chunks"])
    if "open" in params:
        return memory(port, running, load, params["open"])
    return first_token(port, running, load, params["calls"])


def streams(port: int, running: Running, load: str, count: int, seconds: float) -> Sample:
    """Many streams at once, each chunk its own write, from when all are open."""
    before = books(port, "streaming")
    with open_streams(port, running, load, count) as readers:
        server_stats(port, "/go")
        readers.read(SETTLE)
        readers.read(_PATIENCE, lambda: readers.events >= _BEGUN * count)
        begun, cpu = readers.events, running.processes.cpu_seconds()
        with Meter(port) as meter:
            readers.read(seconds)
            readers.read(_PATIENCE, lambda: readers.events - begun >= _LEAST * count)
        cpu = running.processes.cpu_seconds() - cpu
        chunks = readers.events - begun
    wait(lambda: books(port, "streaming") <= before, "the relay did not leave the server's streams")
    figures = {
        "cpu_us": cpu / chunks * 1e6,
        "core": cpu / meter.wall * 100,
        "kept_up": chunks / (count * RATE * meter.wall) * 100,
    }
    return Sample(figures, meter.server, meter.flags)


def answers(port: int, running: Running, load: str, chunks: int) -> Sample:
    """Some answers at once, from the request to the end."""
    asked = running.question(load)
    with Meter(port) as meter, Readers(running.port) as readers:
        cpu = running.processes.cpu_seconds()
        for _ in range(_ANSWERS):
            readers.ask(asked)
        if not readers.read(_PATIENCE, lambda: readers.ended == _ANSWERS):
            raise RuntimeError(f"{_ANSWERS} answers of {chunks} chunks were not relayed in {_PATIENCE:g} s")
        cpu = running.processes.cpu_seconds() - cpu
    return Sample({"cpu_answer_ms": cpu / _ANSWERS * 1e3}, meter.server, meter.flags)


def first_token(port: int, running: Running, load: str, calls: int) -> Sample:
    """One call at a time, through the relay and past it in turn."""
    ways = (running.port, running.question(load)), (port, question(port, model=load))
    waits: list[list[float]] = [[], []]
    with Meter(port) as meter:
        for _ in range(calls):
            for found, way in zip(waits, ways, strict=True):
                found.append(first_chunk(*way))
    through, past = (percentile(found, 0.5) for found in waits)
    return Sample({"added_ms": (through - past) * 1e3}, meter.server, meter.flags)


def memory(port: int, running: Running, load: str, count: int) -> Sample:
    """Streams that have begun and wait for more."""
    warm = running.question(loads.WARM)
    with Meter(port) as meter:
        for _ in range(_WARM):
            first_chunk(running.port, warm)
        before = running.processes.rss_kb()
        with open_streams(port, running, load, count) as readers:
            if not readers.read(_PATIENCE, lambda: readers.events >= count * _HELD):
                raise RuntimeError(f"{count} streams brought {readers.events} chunks in {_PATIENCE:g} s")
            held = running.processes.rss_kb() - before
    return Sample({"kb_stream": held / count}, meter.server, meter.flags)


@contextmanager
def open_streams(port: int, running: Running, load: str, count: int) -> Iterator[Readers]:
    """Open so many streams until the server has them all."""
    asked, before = running.question(load), books(port, "requests")
    with Readers(running.port) as readers:
        for _ in range(count):
            readers.ask(asked)
        wait(lambda: books(port, "requests") >= before + count, f"the relay did not ask for {count} streams")
        yield readers


def books(port: int, name: str) -> int:
    """A number in the server's books."""
    return int(server_stats(port)[name])


def wait(until: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise} in {_PATIENCE:g} s")
        time.sleep(_POLL)


SCENARIO = Scenario(
    "relay",
    "Relay: streams on their way through",
    f"A relay between clients and an OpenAI-compatible server; streams of {RATE} chunks a second, each chunk its own "
    "write, once all are open. CPU is of all the relay's processes. ctxcache is `ctxcache serve --engine openai`, "
    "which keeps contexts and reads every chunk; aiohttp is a relay of ten lines, which copies bytes, as nginx and "
    "vllm-router do. The first token's wait is what the relay adds to the same call past it; memory is what an open "
    "stream adds, of both its ends. Linux only.",
    NAMES,
    cases,
    measure,
    (
        Metric("cpu_us", "CPU a chunk", "µs"),
        Metric("core", "of a core used", "%"),
        Metric("kept_up", "of the chunks due were relayed", "%", more=True),
        Metric("cpu_answer_ms", "CPU an answer", "ms"),
        Metric("added_ms", "time to the first token added", "ms"),
        Metric("kb_stream", "memory of an open stream", "KB"),
    ),
    setting=setting,
    patience=300.0,
)
