"""The lines of a worker: how many there are, and how they end."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxcache.cluster import PrefixAsker
from ctxcache.cluster.worker import background_loop
from ctxcache.gateway import Gateway

from ..managed.redis_server import BINARY, NO_BINARY, redis_server
from .conftest import CountingEngine

PROGRAM = Path(__file__).with_name("endings.py")
WAYS = {"with_run": 2, "in_threads": 1, "left_running": 1, "left_open": 1, "in_a_fork": 3, "spawned": 1}


async def run(way: str, gateway: Gateway, store: str) -> tuple[str, str, int]:
    """Run the program, with every warning an error; gives its output, its errors and its exit code."""
    command = [sys.executable, "-W", "error", str(PROGRAM), way, gateway.base_url, store]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_ends_without_noise(way: str, gateway: Gateway, engine: CountingEngine, tmp_path: Path) -> None:
    """However a worker's event loop or process ends: no warning, nothing unclosed, and one context for all loops."""
    out, err, code = await run(way, gateway, f"sqlite:///{tmp_path}/contexts.db")
    assert (err, code) == ("", 0)
    assert out.splitlines() == ["about a, about b"] * WAYS[way]
    assert len(engine.contexts) == 1


@pytest.mark.skipif(BINARY is None, reason=NO_BINARY)
@pytest.mark.parametrize("way", ["with_run", "in_threads", "left_running"])
async def test_redis_is_closed_too(way: str, gateway: Gateway, engine: CountingEngine) -> None:
    """The same with a store that has connections."""
    with redis_server() as url:
        out, err, code = await run(way, gateway, url)
    assert (err, code) == ("", 0)
    assert out.splitlines() == ["about a, about b"] * WAYS[way]
    assert len(engine.contexts) == 1


async def test_each_event_loop_has_a_session(asker_for: Callable[..., PrefixAsker], engine: CountingEngine) -> None:
    """Without a store, each event loop makes a context of its own, also after another one was closed."""
    asker = asker_for()
    for expected in (1, 2, 3):
        result = await asyncio.to_thread(lambda: asyncio.run(asker({"question": ["a"]})))
        assert result["text"] == ["about a"]
        assert len(engine.contexts) == expected


async def test_threads_share_an_event_loop() -> None:
    """All threads of a process have one event loop, which runs in a thread of its own."""
    first, second = await asyncio.gather(*(asyncio.to_thread(background_loop) for _ in range(2)))
    assert first is second
    assert first is not asyncio.get_running_loop()
    assert first.is_running()


async def test_a_line_has_the_store_of_its_settings(
    asker_for: Callable[..., PrefixAsker], engine: CountingEngine, tmp_path: Path
) -> None:
    """A line without a store makes a context that others do not find, a line with a store shares."""
    store = f"sqlite://{tmp_path}/contexts.db"
    for asker in (asker_for(), asker_for(store=store), asker_for(store=store, temperature=1)):
        assert (await asker({"question": ["a"]}))["text"] == ["about a"]
    assert len(engine.contexts) == 2
