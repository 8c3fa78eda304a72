"""The files of a batch: one number of shards, one writer, replaced at once."""

import errno
import fcntl
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.files import (
    allow_open_files,
    check_layout,
    is_locked,
    open_locked,
    refuse_change,
    replacing,
    written_shards,
)
from ctxcache.cli.batch.shards import Shard


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The place for the answers."""
    return tmp_path / "a.jsonl"


def write(out: Path, *names: str, content: str = "x") -> None:
    """Write files beside the answers."""
    for name in names:
        out.with_name(name).write_text(content)


def test_written_shards(out: Path) -> None:
    """Shards are found by their files; empty files, of starts that were refused, count only if there are no others."""
    assert written_shards(str(out)) == []
    write(out, "a.0-of-4.jsonl", "a.1-of-4.jsonl", content="")
    assert written_shards(str(out)) == [Shard(0, 4), Shard(1, 4)]
    write(out, "a.2-of-8.jsonl")
    assert written_shards(str(out)) == [Shard(2, 8)]
    assert written_shards("no/such/folder/a.jsonl") == []


def test_in_this_folder(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a folder means this one."""
    write(out, "a.2-of-8.jsonl")
    monkeypatch.chdir(out.parent)
    assert written_shards("a.jsonl") == [Shard(2, 8)]


@pytest.mark.parametrize(
    ("names", "shard", "told"),
    [
        (["a.2-of-8.jsonl"], Shard(0, 4), "a.2-of-8.jsonl: has answers of a start with 8 shards, not 4: go on with"),
        (["a.0-of-1.jsonl"], Shard(0, 4), "a.0-of-1.jsonl: has answers of a start with 1 shard, not 4"),
        (["a.2-of-4.jsonl", "a.2-of-8.jsonl"], Shard(0, 4), "a.2-of-8.jsonl: has answers of a start with 8 shards"),
        (["a.jsonl"], Shard(0, 4), "a.jsonl: has answers of a start without shards: go on with --shard none"),
        (["a.2-of-8.jsonl"], None, "a.2-of-8.jsonl: has answers of a start with shards: go on with --shard I/8"),
    ],
)
def test_other_layout(out: Path, names: list[str], shard: Shard | None, told: str) -> None:
    """Answers of a start with another number of shards are refused."""
    write(out, *names)
    with pytest.raises(InvalidInputError) as refused:
        check_layout(str(out), shard)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("names", "shard"),
    [
        ([], Shard(0, 4)),
        ([], None),
        (["a.jsonl"], None),
        (["a.1-of-4.jsonl"], Shard(0, 4)),
        (["a.1-of-4.jsonl", "a.jsonl"], Shard(0, 4)),  # after a merge
        (["a.1-of-4.jsonl", "a.jsonl"], None),  # after a merge
    ],
)
def test_the_same_layout(out: Path, names: list[str], shard: Shard | None) -> None:
    """Starts of the same number of shards go on, after a merge, too, and empty files are no obstacle."""
    write(out, "a.0-of-99.jsonl", content="")
    write(out, *names)
    check_layout(str(out), shard)


def test_lock(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the lock tells whether a process writes, and takes nothing from anyone."""
    file = open_locked(str(out))
    with out.open("rb") as look:
        assert is_locked(look)
        with pytest.raises(InvalidInputError, match="another process writes to it"):
            open_locked(str(out))
        os.close(file)
        assert not is_locked(look)
        os.close(open_locked(str(out)))  # the look has not kept it

        def fail(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", fail)
        assert not is_locked(look)
        with pytest.raises(InvalidInputError, match=r"a\.jsonl: no lock: No locks available"):
            open_locked(str(out))
        monkeypatch.setitem(sys.modules, "fcntl", None)
        assert not is_locked(look)
        os.close(open_locked(str(out)))


@pytest.mark.parametrize("looks", [1, 5, 10_000])
def test_a_look_stops_no_start(out: Path, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """Other processes that look at the lock refuse no start, unless the looks have no end."""
    lock: Callable[..., Any] = fcntl.flock
    tries = 0

    def look_first(file: int, operation: int) -> None:
        nonlocal tries
        if operation & fcntl.LOCK_EX:
            tries += 1
            lock(look, fcntl.LOCK_SH if tries <= looks else fcntl.LOCK_UN)
        lock(file, operation)

    with out.open("wb") as look:
        monkeypatch.setattr(fcntl, "flock", look_first)
        if looks < 100:
            os.close(open_locked(str(out)))
        else:
            with pytest.raises(InvalidInputError, match="another process writes to it"):
                open_locked(str(out))
    assert tries == min(looks + 1, 100)


def test_no_file(out: Path) -> None:
    """A place that cannot be a file is refused."""
    for name, reason in ((os.devnull, "not a regular file"), ("no/such/folder", "No such file or directory")):
        with pytest.raises(InvalidInputError, match=f"{name}: {reason}"):
            open_locked(name)


def test_replaced_at_once(out: Path) -> None:
    """Until the end of the block the old file is there, and afterwards the new one, alone, whatever a kill left."""
    out.write_text("old")
    out.with_name("a.jsonl.merging").write_text("a merge that was killed")
    with replacing(str(out)) as file:
        file.write(b"new")
        with pytest.raises(InvalidInputError, match="another process writes to it"), replacing(str(out)):
            pass
        assert out.read_text() == "old"
    assert out.read_text() == "new"
    assert os.listdir(out.parent) == ["a.jsonl"]


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(errno.ENOSPC, "No space left"), InvalidInputError), (KeyError("x"), KeyError)]
)
def test_not_replaced(out: Path, error: Exception, told: type[Exception]) -> None:
    """After an error the old file stays, and nothing else."""
    out.write_text("old")
    with pytest.raises(told), replacing(str(out)):
        raise error
    assert out.read_text() == "old"
    assert os.listdir(out.parent) == ["a.jsonl"]


def test_replaced_between_open_and_lock(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that gets its lock on a file that was renamed meanwhile is refused."""
    lock: Callable[..., Any] = fcntl.flock

    def rename_first(*arguments: Any) -> None:
        out.rename(out.with_name("other"))
        out.touch()
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", rename_first)
    with pytest.raises(InvalidInputError, match="another process writes to it"):
        open_locked(str(out))


def test_refusal() -> None:
    """Answers that belong to something else are refused with the ways out."""
    told = (
        "a.jsonl: was written for a different prefix: undo the change, give another --out, or start over with --fresh"
    )
    assert str(refuse_change("a.jsonl", "a different prefix")) == told


def test_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of open files is raised where it is too low, never above the hard limit, and never lowered."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = limits[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_open_files(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, hard)
        allow_open_files(400)
        assert 400 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 500
        if hard != resource.RLIM_INFINITY:
            allow_open_files(hard)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    monkeypatch.setitem(sys.modules, "resource", None)
    allow_open_files(10**9)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
