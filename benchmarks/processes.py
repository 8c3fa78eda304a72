"""The server's process and the workers', from the outside."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from .cases import Case

ROOT: Final = Path(__file__).parent.parent
_NOT_INHERITED: Final = ("CTXCACHE_", "OPENAI_", "ARK_", "VOLC_", "COVERAGE_")


def environment() -> dict[str, str]:
    """This process's environment, less what would change a client: keys, base URLs, proxies, tracing."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_INHERITED) and not name.lower().endswith("_proxy")
    }


def _start(module: str, **options: Any) -> "subprocess.Popen[str]":
    # The folder this package stands in goes last: what is measured is the ctxcache beside it, since the process begins
    # there; or the installed one, where PYTHONSAFEPATH says so.
    program = f"import sys; sys.path.append({str(ROOT)!r}); from benchmarks.{module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        **options,
    )


def answer(module: str, job: dict[str, Any]) -> dict[str, float]:
    """Run a module of this package, which reads a job and prints figures, in a process of its own."""
    with _start(module) as program:
        told, _ = program.communicate(json.dumps(job))
    if program.returncode:
        raise RuntimeError(f"{module} ended with {program.returncode}")
    figures: dict[str, float] = json.loads(told)
    return figures


@contextmanager
def load_server() -> Iterator[int]:
    """Run the server; yields its port."""
    server = _start("server")
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()  # which ends it
        server.stdout.close()
        server.wait(30)


def measure(
    scenario: str,
    client: str,
    cases: list[Case],
    port: int,
    cores: list[int],
    *,
    seconds: float,
    on_result: Callable[[dict[str, Any]], None],
) -> None:
    """Measure cases in a fresh process. Each result is given to `on_result`; an error for each that did not come."""
    job = {
        "scenario": scenario,
        "client": client,
        "port": port,
        "cores": cores,
        "cases": [asdict(case) for case in cases],
    }
    missing = [case.name for case in cases]
    with _worker(seconds) as (worker, said):
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.close()
        for line in worker.stdout:
            result = json.loads(line)
            missing.remove(result["case"])
            on_result(result)
    overran = worker.returncode == -signal.SIGKILL
    if overran:
        said.append(f"no result within {seconds:g} s")
    for name in missing:
        on_result({"case": name, "error": said[-1].strip()[:300] if said else "no result", "overran": overran})


@contextmanager
def _worker(seconds: float) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Run a worker for so long at most; yields it and the list that what it writes to stderr goes to."""
    said: list[str] = []
    with _start("worker", stderr=subprocess.PIPE) as worker:
        listener = threading.Thread(target=lambda: said.extend(worker.stderr or ()))
        timer = threading.Timer(seconds, worker.kill)
        listener.start()
        timer.start()
        try:
            yield worker, said
            worker.wait()
        finally:
            timer.cancel()
            if worker.poll() is None:
                worker.kill()
            listener.join()
