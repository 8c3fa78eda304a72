"""The command as a whole: help, exit codes, where errors and half-closed streams lead."""

import importlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ctxcache
from ctxcache.cli import create, main
from ctxcache.cli.terminal import Terminal

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]
COMMANDS = ("demo", "serve", "proxy", "create", "chat", "map", "docs")


def test_version(run: Run) -> None:
    """`--version` prints name and version."""
    assert run("--version") == (0, f"ctxcache {ctxcache.__version__}\n", "")


def test_help_of_the_whole(run: Run) -> None:
    """`--help` names each command, the environment variables and the exit codes, within 80 columns."""
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for word in (*COMMANDS, "CTXCACHE_API_KEY", "CTXCACHE_BASE_URL", "NO_COLOR", "exit codes:", "130"):
        assert word in out
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(run: Run, command: str) -> None:
    """The help of a command has a description, defaults and examples, within 80 columns."""
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"examples:\n  ctxcache {command}" in out
    assert max(map(len, out.splitlines())) < 80
    if command in ("create", "chat", "map"):
        assert "CTXCACHE_BASE_URL" in out
        assert "CTXCACHE_API_KEY" in out


def test_help_is_quick() -> None:
    """Help imports neither aiohttp nor rich nor cattrs."""
    program = "import sys; from ctxcache.cli import main; main(['chat', '--help']); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = shown.stdout.splitlines()[-1]
    assert "'ctxcache.cli.chat'" in loaded
    for module in ("aiohttp", "rich", "cattrs", "ctxcache.gateway", "readline"):
        assert f"'{module}'" not in loaded


@pytest.mark.parametrize("argv", [(), ("fly",), ("--fly",), ("chat",), ("demo", "now"), ("serve", "--port", "x")])
def test_bad_usage_is_one_line(run: Run, argv: tuple[str, ...]) -> None:
    """Bad usage is reported in one line that names the help, with exit code 2."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("ctxcache: ")
    assert err.rstrip().endswith("--help)")
    assert err.count("\n") == 1


def test_as_a_module() -> None:
    """`python -m ctxcache` is the same command, with its exit code; importing that module runs nothing."""
    importlib.import_module("ctxcache.__main__")
    good = subprocess.run([sys.executable, "-m", "ctxcache", "--version"], capture_output=True, text=True, check=False)
    bad = subprocess.run([sys.executable, "-m", "ctxcache"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout) == (0, f"ctxcache {ctxcache.__version__}\n")
    assert (bad.returncode, bad.stderr[:10]) == (2, "ctxcache: ")


def test_no_traceback_for_a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is one line with its type and place, exit code 1."""

    def broken(*_: object) -> int:
        raise KeyError("oops\n")

    monkeypatch.setattr(create, "run", broken)
    code, out, err = run("create")
    assert (code, out) == (1, "")
    assert err.startswith("ctxcache: internal error, please report it: KeyError: 'oops\\n' (")
    assert "test_main.py, line " in err
    assert err.count("\n") == 1


def test_ctrl_c_anywhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that no command handles is exit code 130, silently."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(create, "run", interrupted)
    assert run("create") == (130, "", "")


def test_log_is_as_it_was_afterwards(service: Any, run: Run) -> None:
    """The command leaves no handler and no level on the package's logger."""
    log = logging.getLogger("ctxcache")
    before = (list(log.handlers), log.level)
    run("create", "--system", "x", "-v")
    assert (list(log.handlers), log.level) == before


def test_log_tells_an_exception_in_one_line(service: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logged exception is shown without a traceback, and a stderr that fails does not fail the code that logs."""
    stderr = BreakableStream()

    def logging_run(*_: object) -> int:
        log = logging.getLogger("ctxcache.gateway")
        try:
            raise ValueError("odd")
        except ValueError:
            log.exception("it failed")
        stderr.broken = True
        log.warning("unheard")
        stderr.broken = False
        return 0

    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(create, "run", logging_run)
    assert run("create").code == 0
    assert stderr.getvalue() == "ctxcache: it failed: ValueError('odd')\n"


class BreakableStream(io.StringIO):
    """A stream that fails while it is broken."""

    broken = False

    def write(self, text: str) -> int:
        """Write, or fail."""
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


class BrokenStream(io.StringIO):
    """A stream that cannot be written and has no file descriptor."""

    error: OSError = BrokenPipeError()

    def write(self, _: str) -> int:
        """Fail."""
        raise self.error

    def flush(self) -> None:
        """Fail, until it is closed."""
        if not self.closed:
            raise self.error


class FullStream(BrokenStream):
    """A stream on a full disk."""

    error = OSError(28, "No space left on device")


@pytest.mark.parametrize(("stream", "code"), [(BrokenStream(), 141), (FullStream(), 1)])
def test_output_that_fails(monkeypatch: pytest.MonkeyPatch, stream: Any, code: int) -> None:
    """With neither stdout nor stderr writable, the exit code tells of the failure."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["--version"]) == code


def test_help_into_a_closed_pipe(spawn: Spawn) -> None:
    """`ctxcache --help | true` ends silently."""
    process = spawn("chat", "--help", env={**os.environ, "PYTHONUNBUFFERED": ""}, stdout=closed_pipe())
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) == 141


def closed_pipe() -> int:
    """The writing end of a pipe nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(spawn: Spawn, service: Any) -> None:
    """An output that cannot be written is one line on stderr and exit code 1."""
    with Path("/dev/full").open("w") as full:
        process = spawn("create", "--system", "x", stdout=full)
    assert process.stderr is not None
    assert process.stderr.read() == "ctxcache: No space left on device\n"
    assert process.wait(20) == 1


def test_nothing_to_abandon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that the shell closed can be abandoned like any other."""
    monkeypatch.setattr(sys, "stdout", None)
    out = Terminal().out
    out.line("unheard")
    out.abandon()


def test_closed_streams(service: Any) -> None:
    """With stdout and stderr closed by the shell, the command does its work silently."""
    shell = 'exec "$0" -m ctxcache create --system x >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", shell, sys.executable], check=False).returncode == 0
