"""`ctxcache keys`: the file of keys of a gateway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache.gateway.key_file import read_keys
from ctxcache.gateway.rules.clients import digest

Run = Callable[..., Any]


def test_add_prints_the_key_once(run: Run, tmp_path: Path) -> None:
    """Stdout of `add` is the key alone; neither the file nor `list` shows a key."""
    path = str(tmp_path / "keys.json")
    added = run("keys", "add", path, "ann")
    assert added.code == 0
    key = added.out.removesuffix("\n")
    assert [found.hash for found in read_keys(path)] == [digest(key.encode())]
    assert run("keys", "add", path, "bob").code == 0
    listed = run("keys", "list", path)
    assert (listed.code, listed.out) == (0, "ann\nbob\n")
    for text in (added.err, listed.err, Path(path).read_text()):
        assert key not in text


def test_limits_are_listed(run: Run, tmp_path: Path) -> None:
    """Limits stand behind the name; bytes may have a unit."""
    path = str(tmp_path / "keys.json")
    assert run("keys", "add", path, "ann", "--limit", "calls=4", "--limit", "memory_bytes=1KiB").code == 0
    assert run("keys", "list", path).out == "ann memory_bytes=1024 calls=4\n"


def test_remove(run: Run, tmp_path: Path) -> None:
    """A key is removed by name."""
    path = str(tmp_path / "keys.json")
    for name in ("ann", "bob"):
        run("keys", "add", path, name)
    assert run("keys", "remove", path, "ann").code == 0
    assert run("keys", "list", path).out == "bob\n"


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["add", "FILE"], "ctxcache keys add needs a NAME"),
        (["remove", "FILE"], "ctxcache keys remove needs a NAME"),
        (["list", "FILE", "ann"], "ctxcache keys list takes no NAME"),
        (["add", "FILE", "a b"], "name must be 1 to 64 letters"),
        (["remove", "FILE", "ann"], "keys must be a file that can be read"),
        (["add", "FILE", "ann", "--limit", "speed=1"], "limit must be 'contexts' or"),
        (["add", "FILE", "ann", "--limit", "calls=0"], "calls must be"),
        (["add", "FILE", "ann", "--limit", "calls"], "is not a name and a number"),
        (["remove", "FILE", "ann", "--limit", "calls=1"], "ctxcache keys remove takes no --limit"),
        (["show", "FILE"], "invalid choice: 'show'"),
    ],
)
def test_a_mistake_is_told(run: Run, tmp_path: Path, argv: list[str], problem: str) -> None:
    """A mistake ends with exit code 2 and a line that names it; no file is made."""
    told = run("keys", *[str(tmp_path / "keys.json") if word == "FILE" else word for word in argv])
    assert (told.code, told.out) == (2, "")
    assert problem in told.err
    assert list(tmp_path.iterdir()) == []
