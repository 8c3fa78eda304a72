"""Shards: which part of a batch a task has, and which questions are in the part."""

import argparse
from collections import Counter
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.shards import Shard, find_shards, read_shard, shard_from_environment, shard_of
from ctxcache.config import UNSET


def slurm(id_: int, count: int, first: int, last: int, **more: str) -> dict[str, str]:
    """The environment of a task of a Slurm array."""
    numbers = {"ID": id_, "COUNT": count, "MIN": first, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()} | more


@pytest.mark.parametrize(("text", "shard"), [("0/1", Shard(0, 1)), ("3/8", Shard(3, 8)), ("none", None)])
def test_option(text: str, shard: Shard | None) -> None:
    """A shard is an index from 0 and a count."""
    assert read_shard(text) == shard
    assert text == ("none" if shard is None else str(shard))


@pytest.mark.parametrize("text", ["8/8", "0/0", "1", "1/", "/8", "-1/8", "1/8/9", "a/b", "", "1.0/8", "٣/8"])
def test_no_shard(text: str) -> None:
    """Anything else is refused, as is an index beyond the last."""
    with pytest.raises(argparse.ArgumentTypeError, match="is not a shard"):
        read_shard(text)


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("answers.jsonl", "answers.3-of-8.jsonl"),
        ("a/b.c/answers", "a/b.c/answers.3-of-8"),
        ("/x/.hidden", "/x/.hidden.3-of-8"),
        ("a.b.jsonl", "a.b.3-of-8.jsonl"),
    ],
)
def test_file(out: str, name: str) -> None:
    """The name of a shard's file is found again as that shard's."""
    assert Shard(3, 8).file(out) == name
    assert find_shards([name.rpartition("/")[2]], out) == [Shard(3, 8)]


def test_other_files() -> None:
    """Files that no shard has written are not found."""
    names = ["a.jsonl", "a.8-of-8.jsonl", "a.01-of-8.jsonl", "a.0-of-8.jsonl.1", "b.0-of-8.jsonl", "a.0-of-8-jsonl"]
    assert find_shards([*names, "a.10-of-12.jsonl", "a.9-of-12.jsonl"], "a.jsonl") == [Shard(9, 12), Shard(10, 12)]


def test_without_ids_in_turn() -> None:
    """Questions without an id are dealt in turn, so the shards differ by one question at most."""
    assert [shard_of(UNSET, number, 3) for number in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_with_ids_by_hash() -> None:
    """Questions with an id keep their shard wherever they stand, and the shards are of about the same size."""
    sizes = Counter(shard_of(f"id-{number}", number, 8) for number in range(8000))
    assert set(sizes) == set(range(8))
    assert all(900 < size < 1100 for size in sizes.values())
    assert {shard_of("id-7", number, 8) for number in range(100)} == {shard_of("id-7", 0, 8)}


@pytest.mark.parametrize(("id_", "shard"), [("a", 49), ("é", 4), (7, 30), (7.5, 51), ("7", 88), ("\ud83d", 59)])
def test_the_same_everywhere(id_: Any, shard: int) -> None:
    """The shard of an id is the same on every machine and in every version."""
    assert shard_of(id_, 0, 100) == shard


def test_one_number() -> None:
    """1 and 1.0 are one id."""
    assert [shard_of(float(number), 0, 1000) for number in range(9)] == [shard_of(n, 0, 1000) for n in range(9)]


@pytest.mark.parametrize(
    ("environment", "shard", "name"),
    [
        ({"JOB_COMPLETION_INDEX": "3", "CTXCACHE_SHARDS": "8"}, Shard(3, 8), "JOB_COMPLETION_INDEX"),
        (slurm(3, 8, 0, 7), Shard(3, 8), "SLURM_ARRAY_TASK_ID"),
        (slurm(1, 8, 1, 8), Shard(0, 8), "SLURM_ARRAY_TASK_ID"),
        (slurm(8, 8, 1, 8), Shard(7, 8), "SLURM_ARRAY_TASK_ID"),
        (slurm(15, 4, 5, 20, SLURM_ARRAY_TASK_STEP="5"), Shard(2, 4), "SLURM_ARRAY_TASK_ID"),
        (slurm(7, 1, 7, 7), Shard(0, 1), "SLURM_ARRAY_TASK_ID"),
        # Some tasks of eight, started again.
        (slurm(5, 2, 3, 5, CTXCACHE_SHARDS="8"), Shard(5, 8), "SLURM_ARRAY_TASK_ID"),
        (slurm(7, 1, 7, 7, CTXCACHE_SHARDS="8"), Shard(7, 8), "SLURM_ARRAY_TASK_ID"),
    ],
)
def test_schedulers(environment: dict[str, str], shard: Shard, name: str) -> None:
    """A task of a scheduler gets its shard from the variables that the scheduler sets."""
    assert shard_from_environment(environment) == (shard, name)


@pytest.mark.parametrize("environment", [{}, {"JOB_COMPLETION_INDEX": "", "CTXCACHE_SHARDS": ""}, {"SLURM_ID": "7"}])
def test_no_scheduler(environment: dict[str, str]) -> None:
    """Elsewhere there is no shard."""
    assert shard_from_environment(environment) is None


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX is 3, but the number of shards is unknown: set CTXCACHE"),
        ({"JOB_COMPLETION_INDEX": "8", "CTXCACHE_SHARDS": "8"}, "JOB_COMPLETION_INDEX must be below CTXCACHE_SHARDS"),
        ({"JOB_COMPLETION_INDEX": "-1", "CTXCACHE_SHARDS": "8"}, "must be a whole number, got '-1'"),
        ({"JOB_COMPLETION_INDEX": "0", "CTXCACHE_SHARDS": "0"}, "must be below CTXCACHE_SHARDS, which is 0, got 0"),
        ({"CTXCACHE_SHARDS": "8"}, "CTXCACHE_SHARDS is set, but neither JOB_COMPLETION_INDEX nor SLURM_ARRAY_TASK_ID"),
        ({"JOB_COMPLETION_INDEX": "1", **slurm(3, 8, 0, 7)}, "both JOB_COMPLETION_INDEX and SLURM_ARRAY_TASK_ID are"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT must be a whole number, got ''"),
        (slurm(2, 3, 1, 9), "the array's 3 task ids from 1 to 9 are not evenly spaced"),
        (slurm(2, 3, 1, 4), "not evenly spaced"),
        (slurm(9, 4, 0, 3), "not evenly spaced"),
        (slurm(1, 2, 1, 1), "not evenly spaced"),
        # Every task of an array from 1 to 8 is refused, not only the last.
        (slurm(1, 8, 1, 8, CTXCACHE_SHARDS="8"), "SLURM_ARRAY_TASK_MAX must be below CTXCACHE_SHARDS, which is 8, got"),
    ],
)
def test_unclear(environment: dict[str, str], told: str) -> None:
    """Variables that leave the shard open are refused with the way out, since a guess would pay for answers twice."""
    with pytest.raises(InvalidInputError) as refused:
        shard_from_environment(environment)
    assert told in str(refused.value)
    assert str(refused.value).endswith("give --shard I/N, or --shard none to ask all questions")
