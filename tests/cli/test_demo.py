"""`ctxcache demo`: what it must show, on a terminal and in a pipe."""

import argparse
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache import InternalServerError
from ctxcache.cli import demo
from ctxcache.cli.terminal import Terminal
from ctxcache.gateway import Engine, Prompt, ScriptedEngine

from .conftest import ESCAPES

IN_ORDER = (
    r"A gateway runs in this process, at http://127\.0\.0\.1:\d+/v1",
    r"scripted: no language model wrote them",
    r"1\. A session context",
    r"created +ctx-\d{14}-\w{5} \(session, [\d,]+ tokens\)",
    r"you +How long is the lamp guaranteed\?",
    r"answer +This is a scripted answer",
    r"[\d,]+ tokens in \([\d,]+ cached \+ \d+ new\), \d+ out",
    r"The\s+context holds 3 messages",
    r"2\. A prefix context",
    r"created +ctx-\d{14}-\w{5} \(common_prefix, [\d,]+ tokens\)",
    r"\d\.\d\d s +clause \d: [\d,]+ tokens in",
    r"3\. Two calls at once",
    r"\d\.\d\d s +A is called",
    r"A: first token",
    r"B is called",
    r"another program: refused, 403 OperationDenied\.InvalidState",
    r"A: last token",
    r"B: first token",
    r"B: last token",
    r"4\. An expired context is noticed",
    r"raised +ContextGoneError: 404 NotFound",
    r"created +ctx-",
    r"answer +This is a scripted answer",
    r"5\. What the cache saved",
    r"cached +[\d,]+ of the [\d,]+ prompt tokens of 9 answers: 99\.\d %",
    r"\d+ % less for input, if a cached token costs 20 % of a new one\s+\(assumed",
)


def assert_shows_everything(text: str) -> None:
    """Check the contents of the demo, and their order."""
    place = 0
    for pattern in IN_ORDER:
        found = re.compile(pattern).search(text, place)
        assert found, f"{pattern!r} is not shown after {text[:place][-200:]!r}"
        place = found.end()
    assert max(map(len, text.splitlines())) <= 80


def test_demo(spawn: Callable[..., "subprocess.Popen[str]"], on_terminal: Callable[..., Any], service: Any) -> None:
    """The same on a terminal, styled and token by token, and in a pipe, plain; exit code 0, nothing on stderr."""
    piped = spawn("demo")  # both at once, since they take seconds
    terminal = on_terminal("demo")
    terminal.expect("This")
    assert "model." not in terminal.shown  # is yet to come
    out, err = piped.communicate(timeout=60)
    assert (piped.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert_shows_everything(out)
    assert terminal.wait() == 0
    assert terminal.shown.count("\x1b[1m") > 20
    assert_shows_everything(ESCAPES.sub("", terminal.shown))


class FailingEngine:
    """Answers, but not the question for clause 3."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply, or fail."""
        if "clause 3" in prompt.question[-1].content:
            raise ValueError("no such clause")
        yield "Yes."


def show(capsys: pytest.CaptureFixture[str], engine: Engine) -> str:
    """Run the demo with an engine; return its output."""
    capsys.readouterr()
    assert demo.run(argparse.Namespace(), Terminal(), engine) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_second_call_waits_for_the_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the times shown, B begins after A has ended. A proxy in the environment is bypassed."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    shown = show(capsys, ScriptedEngine(pieces_per_second=100, first_token_delay=0.05))
    assert_shows_everything(shown)
    times = {what: float(time) for time, what in re.findall(r"(\d+\.\d\d) s +([AB]: \w+ token)", shown)}
    assert times["A: first token"] < times["A: last token"] < times["B: first token"] < times["B: last token"]
    assert os.environ["no_proxy"] == "example.org"


def test_counts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The totals of cached, new and saved tokens follow from the usage of each call."""
    text = show(capsys, ScriptedEngine(pieces_per_second=0, first_token_delay=0.02)).replace(",", "")
    calls = [tuple(map(int, call)) for call in re.findall(r"(\d+) tokens in \((\d+) cached \+ (\d+) new\)", text)]
    assert all(tokens == cached + new for tokens, cached, new in calls)
    found = re.search(
        r"cached +(\d+) of the (\d+) prompt tokens .* new +(\d+): (\d+) to create 3 contexts (\d+)", text, re.S
    )
    assert found
    cached, prompt, new, created, asked = map(int, found.groups())
    assert new == created + asked
    assert prompt == cached + asked
    assert sum(int(tokens) for tokens in re.findall(r"(?:session|common_prefix) (\d+) tokens", text)) == created
    saved = re.search(r"(\d+) % less for input", text)
    assert saved
    assert int(saved[1]) == round(100 * (1 - (new + 0.2 * cached) / prompt))


def test_ctrl_c_ends_the_demo(spawn: Callable[..., "subprocess.Popen[str]"]) -> None:
    """SIGINT ends the demo with exit code 130 and an empty stderr."""
    process = spawn("demo")
    assert process.stdout is not None
    while "answer" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) == 130


def test_failure_in_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    """A call that fails beside others raises its own error, not a group."""
    with pytest.raises(InternalServerError):
        demo.run(argparse.Namespace(), Terminal(), FailingEngine())
    assert "2. A prefix context" in capsys.readouterr().out
