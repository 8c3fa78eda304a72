"""Files of saved slots: private, bounded, removed in the end."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ctxcache.gateway.engines.llama.files import SlotFiles

Until = Callable[[Callable[[], object]], Awaitable[None]]


def save(files: SlotFiles, context_id: str, size: int = 100) -> None:
    """Write a file as llama.cpp would, and add it."""
    name = files.new_name()
    (files.folder / name).write_bytes(b"x" * size)
    files.add(context_id, name)


def kept(files: SlotFiles, context_ids: str) -> str:
    """The contexts that have a file."""
    return "".join(context_id for context_id in context_ids if files.find(context_id))


def on_disk(files: SlotFiles) -> dict[str, int]:
    """The files in the folder, with their sizes."""
    found = {}
    for path in files.folder.iterdir():
        with suppress(FileNotFoundError):  # removed meanwhile
            found[path.name] = path.stat().st_size
    return found


def test_a_file_for_each_context(tmp_path: Path) -> None:
    """A saved context is found by name; another is not; a second save replaces the first."""
    files = SlotFiles(1000, tmp_path)
    assert files.find("a") is None
    save(files, "a", 100)
    save(files, "b", 30)
    save(files, "a", 70)
    name = files.find("a")
    assert name is not None
    assert on_disk(files)[name] == 70
    assert name != files.find("b")
    assert files.find("c") is None
    assert files.size == sum(on_disk(files).values()) == 100
    files.close()


def test_the_file_used_longest_ago_goes(tmp_path: Path) -> None:
    """Beyond the limit the files used longest ago go, as many as it takes; a look at a file is a use."""
    files = SlotFiles(300, tmp_path)
    for context_id in "abc":
        save(files, context_id)
    files.find("a")
    save(files, "d")
    assert kept(files, "abcd") == "acd"
    save(files, "e", 250)
    assert kept(files, "abcde") == "e"
    assert list(on_disk(files).values()) == [250]
    files.close()


def test_a_file_beyond_the_limit(tmp_path: Path) -> None:
    """A file larger than the limit is not kept, and leaves room for others."""
    files = SlotFiles(300, tmp_path)
    save(files, "a", 301)
    assert (files.find("a"), files.size, on_disk(files)) == (None, 0, {})
    save(files, "b", 300)
    assert files.find("b")
    files.close()


def test_forgotten_contexts_leave_no_file(tmp_path: Path) -> None:
    """A forgotten context's file is gone from the disk; an unknown context is no error."""
    files = SlotFiles(300, tmp_path)
    save(files, "a")
    for context_id in "aab":
        files.forget(context_id)
    assert (files.find("a"), files.size, on_disk(files)) == (None, 0, {})
    files.close()


async def test_files_are_removed_beside_the_loop(tmp_path: Path, until: Until) -> None:
    """In an event loop a thread removes the file; a context saved again meanwhile keeps the new one."""
    files = SlotFiles(300, tmp_path)
    save(files, "a", 100)
    files.forget("a")
    save(files, "a", 70)
    await until(lambda: list(on_disk(files).values()) == [70])
    await asyncio.get_running_loop().shutdown_default_executor()
    assert files.find("a") in on_disk(files)
    files.close()


def test_a_file_that_was_not_written(tmp_path: Path) -> None:
    """Without a written file nothing is added, and a former file stays; a half-written file goes."""
    files = SlotFiles(300, tmp_path)
    save(files, "a")
    with pytest.raises(FileNotFoundError):
        files.add("a", files.new_name())
    name = files.new_name()
    (files.folder / name).write_bytes(b"half")
    files.discard(name)
    assert list(on_disk(files)) == [files.find("a")]
    files.close()


def test_the_folder_is_private_and_goes(tmp_path: Path) -> None:
    """The folder is new, for its owner only, in the parent given, and removed with all files."""
    files = SlotFiles(300, tmp_path)
    assert files.folder.parent == tmp_path
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    save(files, "a")
    files.close()
    assert not files.folder.exists()
    files.close()


def test_a_kept_folder_is_read_again(tmp_path: Path) -> None:
    """The next run finds the files of contexts that live; others, and files that are not whole, are removed."""
    files = SlotFiles(1000, tmp_path, "kept")
    for context_id in ("ctx-1-a", "ctx-1-b", "ctx-1-a"):
        save(files, context_id)
    (files.folder / files.new_name()).write_bytes(b"half")
    files.close()
    again = SlotFiles(1000, tmp_path, "kept")
    assert again.size == 200
    assert again.find("ctx-1-a") == "ctx-1-a.3.slot"
    assert len(on_disk(again)) == 2
    again.keep_only({"ctx-1-a"})
    assert list(on_disk(again)) == ["ctx-1-a.3.slot"]
    save(again, "ctx-1-c")
    assert again.find("ctx-1-c") == "ctx-1-c.4.slot"
    assert stat.S_IMODE(again.folder.stat().st_mode) == 0o700


def test_a_kept_folder_keeps_the_limit(tmp_path: Path) -> None:
    """A smaller limit at the next run removes the oldest files."""
    files = SlotFiles(1000, tmp_path, "kept")
    for number, context_id in enumerate("abc"):
        save(files, context_id)
        os.utime(files.folder / (files.find(context_id) or ""), (number, number))
    assert kept(SlotFiles(200, tmp_path, "kept"), "abc") == "bc"
