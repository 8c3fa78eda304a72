"""What a piece of work cost: CPU by the operating system's accounting, time, memory; and what the server did."""

import gc
import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

BUSY_SHARE: Final = 0.85  # of one core; a sample whose server was busier is flagged
_LATE_SHARE: Final = 0.01  # of its chunks, where it is more than a few
_LATE_FEW: Final = 50
_PAGE: Final = resource.getpagesize()
_PROC: Final = Path("/proc")
_STATM: Final = Path("/proc/self/statm")
_STAT: Final = Path("/proc/stat")


def cpu_seconds() -> float:
    """CPU this process has used, in user and kernel mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_kb() -> float:
    """Memory this process has in RAM now, after a collection."""
    gc.collect()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * _PAGE / 1024
    return float(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())]))


class ProcessGroup:
    """The processes of a session, seen from another process: a program with all that it starts. Linux only.

    Args:
        leader: the id of the process that began the session.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def cpu_seconds(self) -> float:
        """CPU that the processes have used, in user and kernel mode; to the nanosecond, unlike /proc's ticks."""
        return sum(time.clock_gettime(_cpu_clock(process)) for process in self.ids())

    def rss_kb(self) -> float:
        """Memory that the processes have in RAM."""
        pages = (int(_PROC.joinpath(str(process), "statm").read_text().split()[1]) for process in self.ids())
        return sum(pages) * _PAGE / 1024

    def ids(self) -> list[int]:
        """The ids of the processes."""
        return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit() and self._has(int(path.name))]

    def _has(self, process: int) -> bool:
        try:
            return os.getsid(process) == self._leader
        except ProcessLookupError:
            return False


def _cpu_clock(process: int) -> int:
    """The id of the clock that counts a process's CPU, as `clock_getcpuclockid(3)` makes it on Linux."""
    return ~process << 3 | 2


class Bystanders:
    """Measures what everybody else on the machine does, from its making on: a busy machine makes bad figures."""

    def __init__(self) -> None:
        self._before = self._look()

    @staticmethod
    def _look() -> tuple[float, float, float] | None:
        if not _STAT.exists():
            return None
        user, nice, system, idle, waiting, *interrupts = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9])
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(used.ru_utime + used.ru_stime for used in ours)
        return busy, own, (idle + waiting) / os.sysconf("SC_CLK_TCK") + busy

    def share(self) -> float | None:
        """Others' share of all cores since then, of 1; None where the machine does not tell."""
        now = self._look()
        if now is None or self._before is None:
            return None
        busy, own, clock = (after - before for after, before in zip(now, self._before, strict=True))
        return max(0.0, (busy - own) / max(clock, 1e-9))


def pin(cores: list[int]) -> None:
    """Run on these cores only, where the machine knows of that."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


@contextmanager
def pinned(cores: list[int]) -> Iterator[None]:
    """Run on these cores meanwhile; processes that are started meanwhile begin there, too."""
    before = sorted(os.sched_getaffinity(0)) if cores and hasattr(os, "sched_getaffinity") else []
    pin(cores)
    try:
        yield
    finally:
        pin(before)


def split_cores() -> tuple[list[int], list[int]]:
    """The client's core, and those of everything else; nothing is pinned where there is only one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (cores[-1:], cores[:-1]) if len(cores) > 1 else ([], [])


def server_stats(port: int, path: str = "/stats") -> dict[str, Any]:
    """Ask the server for its books; blocks, since nothing else is to happen meanwhile."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
        asking.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"}" not in received:
            received += asking.recv(65536)
    stats: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return stats


class Meter:
    """Measures what happens between `with` and its end.

    Attributes:
        cpu, wall: of this process, in seconds.
        server: what the server's books changed by: `share` is its CPU over its clock.
        flags: why this sample should not be believed.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.cpu = self.wall = 0.0
        self.server: dict[str, float] = {}
        self.flags: list[str] = []

    def __enter__(self) -> Self:
        self._before = server_stats(self._port)
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = cpu_seconds() - self._cpu, time.perf_counter() - self._wall
        after = server_stats(self._port)
        self.server = {name: after[name] - self._before[name] for name in after}
        self.server["share"] = self.server["cpu"] / max(self.server["clock"], 1e-9)
        if self.server["share"] > BUSY_SHARE:
            self.flags.append(f"server busy: {self.server['share']:.0%} of a core")
        if self.server["late"] > max(_LATE_SHARE * self.server["chunks"], _LATE_FEW):
            self.flags.append(f"server late: {self.server['late']:.0f} of {self.server['chunks']:.0f} chunks")
