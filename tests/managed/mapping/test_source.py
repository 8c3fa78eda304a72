"""`source`: reads one question at a time, and closes what is a generator."""

from pathlib import Path

import pytest

from ctxcache.managed.mapping import Map
from ctxcache.managed.mapping.source import Source

from .asking import Asked, Watched, collect

pytestmark = pytest.mark.usefixtures("quiet_loop")


@pytest.mark.parametrize("kind", ["read", "stream"])
@pytest.mark.parametrize("way", ["end", "aclose", "never begun"])
async def test_generators_are_closed(quick: Asked, kind: str, way: str) -> None:
    """A generator of questions is closed when the map ends, however it ends, and even where it never began."""
    watched = Watched(100)
    questions = getattr(watched, kind)()
    async with Map(quick, questions, concurrency=2) as answers:
        if way != "never begun":
            await anext(answers)
        if way == "end":
            await collect(answers)
    assert watched.closed or way == "never begun"
    with pytest.raises((StopIteration, StopAsyncIteration)):
        if kind == "read":
            next(questions)
        else:
            await anext(questions)


async def test_files_stay_open(quick: Asked, tmp_path: Path) -> None:
    """What is no generator is left to its owner."""
    (tmp_path / "q.txt").write_text("a\nb\n")
    with (tmp_path / "q.txt").open() as file:
        assert len(await collect(Map(quick, file))) == 2
        assert not file.closed


@pytest.mark.parametrize("kind", ["read", "stream"])
async def test_one_at_a_time(kind: str) -> None:
    """Numbered from 0; None at the end, and again after it."""
    watched = Watched(2)
    source = Source(getattr(watched, kind)())
    first = await source.next()
    assert first is not None
    assert (first.index, first.question, first.attempts, watched.taken) == (0, 0, 0, 1)
    second = await source.next()
    assert second is not None
    assert second.index == 1
    assert [await source.next(), await source.next()] == [None, None]


async def test_a_list_is_left_alone() -> None:
    """Only a generator is closed."""
    source = Source(["a"])
    assert await source.next() is not None
    await source.aclose()
    await Source(["a"]).aclose()


async def test_a_none_is_a_question() -> None:
    """Whatever the iterable gives is one."""
    job = await Source([None]).next()
    assert job is not None
    assert job.question is None
