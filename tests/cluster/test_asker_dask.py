"""A local Dask cluster with worker processes; the gateway is here, the driver is a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache.cluster import PrefixAsker
from ctxcache.gateway import Gateway

from .conftest import NOISE, CountingEngine

pytest.importorskip("distributed")

PROGRAM = Path(__file__).with_name("dask_program.py")


async def drive(gateway: Gateway, tmp_path: Path, questions: int, method: str, kill: str = "") -> list[dict[str, Any]]:
    """Run the driver; gives the answered batches. Its log, and that of its workers, has no noise."""
    store = f"sqlite://{tmp_path}/contexts.db"
    command = [sys.executable, "-W", "default", str(PROGRAM), str(questions), method, kill, gateway.base_url, store]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if any(word in line for word in NOISE)] == []
    batches: list[dict[str, Any]] = json.loads(done.stdout)
    return batches


def check(batches: list[dict[str, Any]], questions: int) -> None:
    """Each question has its own answer, once."""
    rows = [row for batch in batches for row in zip(batch["question"], batch["text"], batch["error"], strict=True)]
    assert rows == [(f"q{n}", f"about q{n}", None) for n in range(questions)]


async def test_a_worker_killed_in_the_middle(gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """5,000 questions on two workers, one of which is killed: each is answered once, over one context."""
    check(await drive(gateway, tmp_path, 5000, "call", "kill"), 5000)
    assert len(engine.asked) == 5000
    assert engine.asked.total() < 5000 * 1.5  # only the batches of the dead worker were asked again
    assert set(engine.asked.values()) == {1, 2}  # some were, and each of them once
    assert len(engine.contexts) == 1


async def test_a_context_that_expires_in_the_middle(gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """Two workers find their context gone at the same time: together they make one more, and no question fails."""

    def expire() -> None:
        if engine.asked.total() == 500:
            gateway.expire(engine.contexts[0].id)

    engine.each = expire
    check(await drive(gateway, tmp_path, 1000, "call"), 1000)
    assert len(engine.contexts) == 2
    assert engine.asked.total() == 1000


async def test_in_threads(gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """`run` does the same in the threads of the workers."""
    check(await drive(gateway, tmp_path, 1000, "run"), 1000)
    assert len(engine.contexts) == 1
    assert engine.asked.total() == 1000


def test_dask_takes_the_asker_for_a_coroutine(asker_for: Callable[..., PrefixAsker]) -> None:
    """Dask runs the object itself on the worker's event loop, on every version of Python."""
    from distributed.utils import iscoroutinefunction

    assert iscoroutinefunction(asker_for())
