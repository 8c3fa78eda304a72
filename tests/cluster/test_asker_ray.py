"""Ray Data on this machine; the gateway is here, the driver is a process of its own. `.ci/ray` installs Ray."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxcache.gateway import Gateway

from .conftest import NOISE, CountingEngine

pytest.importorskip("ray")

PROGRAM = Path(__file__).with_name("ray_program.py")


async def drive(
    gateway: Gateway, tmp_path: Path, questions: int, batch_format: str, kill: str = ""
) -> list[dict[str, Any]]:
    """Run the driver; gives the answered rows in order. Its log, and that of its workers, has no noise of ours."""
    store = f"sqlite://{tmp_path}/contexts.db"
    given = [str(questions), batch_format, kill, gateway.base_url, store]
    command = [sys.executable, str(PROGRAM), *given]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()  # Ray writes the logs of workers to both
    (answered,) = [line for line in lines if line.startswith("[{")]
    if not kill:  # of a killed worker Ray tells much
        assert [line for line in lines if line != answered and any(word in line for word in NOISE[:-1])] == []
    rows: list[dict[str, Any]] = json.loads(answered)
    return sorted(rows, key=lambda row: row["id"])


def check(rows: list[dict[str, Any]], questions: int) -> None:
    """Each question has its own answer, once."""
    found = [(row["question"], row["text"], row["error"]) for row in rows]
    assert found == [(f"q{n}", f"about q{n}", None) for n in range(questions)]
    assert all(row["cached_tokens"] > 0 for row in rows)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
async def test_batches_of_ray(batch_format: str, gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """In each of Ray's formats, two actors answer each question once, over one context."""
    check(await drive(gateway, tmp_path, 1000, batch_format), 1000)
    assert engine.asked.total() == 1000
    assert len(engine.contexts) == 1


async def test_a_worker_killed_in_the_middle(gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """5,000 questions, one actor of two killed: each question has one answer, over one context."""
    check(await drive(gateway, tmp_path, 5000, "numpy", "kill"), 5000)
    assert engine.asked.total() > 5000  # the batches of the dead worker were asked again
    assert len(engine.contexts) == 1


async def test_a_context_that_expires_in_the_middle(gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """Two actors find their context gone at the same time: together they make one more, and no question fails."""

    def expire() -> None:
        if engine.asked.total() == 500:
            gateway.expire(engine.contexts[0].id)

    engine.each = expire
    check(await drive(gateway, tmp_path, 1000, "numpy"), 1000)
    assert len(engine.contexts) == 2
    assert engine.asked.total() == 1000
