"""Four processes over one store; one of them is killed."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CONTENDER = Path(__file__).with_name("contender.py")

pytestmark = pytest.mark.parametrize("shelf", ["sqlite", "redis"], indirect=True)


@pytest.fixture
def start(shelf: Any, tmp_path: Path) -> Iterator[Callable[[str, int], list[subprocess.Popen[str]]]]:
    """Start processes that begin together."""
    running: list[subprocess.Popen[str]] = []

    def start(what: str, count: int) -> list[subprocess.Popen[str]]:
        command = [sys.executable, str(CONTENDER), str(tmp_path), what, *shelf.spec()]
        pipe = subprocess.PIPE
        started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
        running.extend(started)
        for process in started:
            assert process.stdout.readline() == "ready\n"
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        return started

    yield start
    for process in running:
        process.kill()
        process.communicate()


async def test_four_processes_create_each_context_once(start: Any, tmp_path: Path) -> None:
    """One holds the lease at a time, and what it created the others take."""
    for process in start("create", 4):
        _, complaints = process.communicate(timeout=120)
        assert (process.returncode, complaints) == (0, "")
    created = (tmp_path / "created").read_text().split()
    assert Counter(created) == {f"k{number}": 1 for number in range(10)}


async def test_a_killed_holder_s_lease_ends_by_itself(shelf: Any, start: Any) -> None:
    """And not before."""
    [holder] = start("hold", 1)
    assert holder.stdout.readline() == "held\n"
    store = shelf.store()
    assert not await store.lease("k", "you", 60)
    holder.kill()
    holder.wait()
    assert not await store.lease("k", "you", 60)
    shelf.advance(3601)
    assert await store.lease("k", "you", 60)


async def test_processes_killed_while_they_write_leave_the_store_usable(shelf: Any, start: Any) -> None:
    """What is kept is whole: a context of one of them."""
    store = shelf.store()
    await store.put("mine", "ctx-mine", 3600, 3600)
    writers = start("write", 3)
    for writer in writers:
        assert writer.stdout.readline() == "held\n"
    names = {f"ctx-{writer.pid}" for writer in writers}
    async with asyncio.timeout(60):
        while await store.get("k") is None:  # until one has written
            pass
    for writer in writers:
        writer.kill()
        writer.wait()
    assert (await store.get("k")).id in names
    assert (await store.get("mine")).id == "ctx-mine"
    await store.put("k", "ctx-new", 3600, 3600)
    shelf.advance(3601)
    assert await store.lease("k", "you", 60)
