"""A file of keys."""

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from ctxcache.errors import InvalidInputError
from ctxcache.gateway.key_file import add_key, read_keys, remove_key
from ctxcache.gateway.rules.clients import digest


def test_a_file_has_hashes_only(tmp_path: Path) -> None:
    """A new key is in no file; the file has the hash, and only the owner of the file can read it."""
    path = tmp_path / "keys.json"
    keys = [add_key(str(path), name) for name in ("ann", "bob")]
    text = path.read_text()
    assert [key for key in keys if key in text or key.removeprefix("sk-") in text] == []
    assert [(key.name, key.hash) for key in read_keys(path)] == [
        ("ann", digest(keys[0].encode())),
        ("bob", digest(keys[1].encode())),
    ]
    remove_key(str(path), "ann")
    assert [key.name for key in read_keys(path)] == ["bob"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys.json"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    """After an error the file is as it was, and nothing lies beside it."""
    path = tmp_path / "keys.json"
    add_key(str(path), "ann")
    before = path.read_bytes()
    for change, name in ((add_key, "ann"), (add_key, "-"), (remove_key, "bob")):
        with pytest.raises(InvalidInputError, match=r"^name must"):
            change(str(path), name)
    path.chmod(0o644)
    path.write_bytes(b"{")
    with pytest.raises(InvalidInputError, match=r"^keys must be a file of keys"):
        add_key(str(path), "bob")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"{", ["keys.json"])
    assert before != b"{"
    with pytest.raises(InvalidInputError, match=r"^keys must be a file that can be read"):
        remove_key(str(tmp_path / "other.json"), "ann")
    assert os.listdir(tmp_path) == ["keys.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file behind a symbolic link is replaced, not the link."""
    (tmp_path / "link").symlink_to(tmp_path / "keys.json")
    add_key(str(tmp_path / "link"), "ann")
    assert (tmp_path / "link").is_symlink()
    assert [key.name for key in read_keys(tmp_path / "keys.json")] == ["ann"]


def test_changes_at_once_lose_no_key(tmp_path: Path) -> None:
    """Of many commands at once each adds a key, or says that another is at work."""
    path, added, refused = str(tmp_path / "keys.json"), [], []

    def change(name: str) -> None:
        try:
            added.append((name, add_key(path, name)))
        except InvalidInputError as error:
            assert "another command changes the keys" in error.message
            refused.append(name)

    threads = [threading.Thread(target=change, args=[f"key-{number}"]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(added) + len(refused) == 20
    assert {key.name for key in read_keys(path)} == {name for name, _ in added}


@pytest.mark.parametrize("path", [None, 1, b"keys", "\0"])
def test_a_path_is_needed(path: Any) -> None:
    """Anything but the path of a file is refused by name."""
    with pytest.raises(InvalidInputError, match=r"^keys must be"):
        read_keys(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """An error of the disk names the file."""
    with pytest.raises(InvalidInputError, match=r"keys\.json\.new cannot be written: No such file"):
        add_key(str(tmp_path / "none" / "keys.json"), "ann")
