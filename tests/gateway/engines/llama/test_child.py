"""The program of the child process, with a package that stands for xllamacpp."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxcache.gateway.engines.llama.server import COMMAND

PARENT = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
settings = {{**json.loads(sys.stdin.readline()), "parent": os.getpid()}}
child.stdin.write(json.dumps(settings).encode() + b"\\n")
child.stdin.flush()
report = child.stdout.readline() if {wait} else b"\\n"
sys.stdout.write(f"{{child.pid}} {{report.decode()}}")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def settings(model: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    """What a child is told."""
    folder = tmp_path / "slots"
    folder.mkdir()
    return {
        "model": str(model()),
        "name": "small",
        "slots": 2,
        "window": 64,
        "threads": 1,
        "folder": str(folder),
        "key": "secret",
        "parent": os.getpid(),
    }


@pytest.fixture
def run(fake: None) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start processes, which are killed at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(settings: dict[str, Any], *command: str, **options: Any) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        process = subprocess.Popen(command or COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, **options)
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def report(process: "subprocess.Popen[bytes]") -> Any:
    """Read the report of a child."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_serves_until_stdin_ends(run: Callable[..., Any], settings: dict[str, Any]) -> None:
    """The report has the URL and stdout nothing else; the end of stdin ends the child, and removes the folder."""
    child = run(settings)
    assert report(child)["url"].startswith("http://127.0.0.1:")
    assert Path(settings["folder"]).exists()
    out, log = child.communicate(timeout=20)
    assert (child.returncode, out) == (0, b"")
    assert b"native code prints where it likes" in log
    assert not Path(settings["folder"]).exists()


def test_a_model_that_cannot_be_loaded(run: Callable[..., Any], settings: dict[str, Any]) -> None:
    """The report has the reason, and the child ends with 1."""
    Path(settings["model"]).write_text("GGUF broken")
    child = run(settings)
    assert "Failed to init server" in report(child)["error"]
    assert child.wait(20) == 1


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("raise ModuleNotFoundError('no module named xllamacpp')", {"missing": True}),
        ("raise ImportError('no libgomp')", {"error": "no libgomp"}),
    ],
)
def test_a_package_that_cannot_be_imported(
    run: Callable[..., Any], settings: dict[str, Any], tmp_path: Path, package: str, expected: object
) -> None:
    """A package that is not installed is told from one that fails."""
    (tmp_path / "xllamacpp.py").write_text(package)
    child = run(settings, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert report(child) == expected
    assert child.wait(20) == 1


def test_the_key_is_not_for_everybody(run: Callable[..., Any], settings: dict[str, Any]) -> None:
    """The command line and the environment of the child, which others may read, do not have the key."""
    child = run(settings)
    report(child)
    for name in ("cmdline", "environ"):
        assert settings["key"].encode() not in Path(f"/proc/{child.pid}/{name}").read_bytes()


@pytest.mark.parametrize("moment", ["serving", "loading", "starting"])
async def test_ends_with_a_parent_that_is_killed(
    run: Callable[..., Any],
    settings: dict[str, Any],
    model: Callable[..., Path],
    is_running: Callable[[int], bool],
    moment: str,
) -> None:
    """A parent killed with SIGKILL takes the child along, at whatever moment."""
    serving = moment == "serving"
    if not serving:
        settings["model"] = str(model("endless"))
    parent = run(settings, sys.executable, "-c", PARENT.format(wait=serving), *COMMAND)
    pid, _, url = parent.stdout.readline().partition(b" ")
    assert (b"http" in url) == serving
    if moment == "loading":
        assert parent.stderr.readline() == b"loading\n"
    assert is_running(int(pid))
    parent.send_signal(signal.SIGKILL)
    async with asyncio.timeout(20):
        while is_running(int(pid)):  # noqa: ASYNC110  # a process of somebody else has no event
            await asyncio.sleep(0)
