"""`ctxcache demo`: the contents, on a terminal and in a pipe."""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from ctxcache import BadRequestError, CtxCacheError, InternalServerError
from ctxcache.cli import demo
from ctxcache.cli.terminal import Terminal
from ctxcache.gateway import Engine, Prompt, ScriptedEngine

from .conftest import ESCAPES

ID = r"ctx-\d{14}-\w{5}"
IN_ORDER = (
    r"A gateway runs in this process, at http://127\.0\.0\.1:\d+/v1",
    r"scripted: no language model wrote them",
    r"1\. A conversation",
    r"you +How long is the lamp guaranteed\?",
    rf"hook +on_create: {ID} \(session, [\d,]+ tokens\)",
    r"answer +This is a scripted answer",
    r"[\d,]+ tokens in \([\d,]+ cached \+ \d+ new\), \d+ out",
    r"The\s+context holds 3 messages",
    r"2\. Two turns at once",
    r"\d\.\d\d s +A is called",
    r"A: first token",
    r"B is called",
    r"another program: refused, 403 OperationDenied\.InvalidState",
    r"A: last token",
    r"B: first token",
    r"B: last token",
    r"3\. The context expires; the next turn works, without a line of your code",
    rf"gateway +{ID} has expired",
    r"you +Is the shade washable\?",
    r"hook +on_call: ContextGoneError, 404 NotFound",
    rf"hook +on_recreate \(gone\): {ID}",
    r"answer +This is a scripted answer",
    rf"gateway +{ID} holds 11 of the 11 messages so far",
    r"4\. \d+ questions over one handbook",
    rf"hook +on_create: {ID} \(common_prefix, [\d,]+ tokens\)",
    r"\d\.\d\d s +\d+ answers, [\d,]+ tokens in",
    r"5\. The bill for those questions, with the cache and without",
    r"sum +\d\.\d{4} +\d\.\d{4}",
    r"assumed, per million tokens",
    r"\d+ calls cost",
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
    """The same on a terminal, styled, token by token and with a bar, and in a pipe, plain; nothing on stderr."""
    piped = spawn("demo")  # both at once, since they take seconds
    terminal = on_terminal("demo")
    terminal.expect("This")
    assert "model." not in terminal.shown  # is yet to come
    out, err = piped.communicate(timeout=60)
    assert (piped.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert_shows_everything(out)
    assert re.findall(r"s +(\d+) of 300 answers, \d+\.\d% cached", out) == ["75", "150", "225"]
    terminal.expect("4. 300 questions")
    terminal.expect("/300")
    terminal.expect("% cached")
    assert terminal.wait() == 0
    assert terminal.shown.count("\x1b[1m") > 20
    assert_shows_everything(ESCAPES.sub("", terminal.shown))


# --- with engines and numbers of our own, in this process -------------------------------------------------------------

AT_ONCE = ScriptedEngine(pieces_per_second=0, first_token_delay=0.01)


def show(capsys: pytest.CaptureFixture[str], engine: Engine = AT_ONCE, *, questions: int = 12) -> str:
    """Run the demo with an engine; return its output."""
    capsys.readouterr()
    assert demo.run(argparse.Namespace(), Terminal(), engine=engine, questions=questions) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def find(pattern: str, text: str) -> tuple[str, ...]:
    """Return the groups of a pattern."""
    found = re.search(pattern, text)
    assert found, pattern
    return found.groups()


def test_second_call_waits_for_the_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the times shown, B begins after A has ended. A proxy in the environment is bypassed."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    shown = show(capsys, ScriptedEngine(pieces_per_second=100, first_token_delay=0.05))
    assert_shows_everything(shown)
    times = {what: float(time) for time, what in re.findall(r"(\d+\.\d\d) s +([AB]: \w+ token)", shown)}
    assert times["A: first token"] < times["A: last token"] < times["B: first token"] < times["B: last token"]
    assert os.environ["no_proxy"] == "example.org"


@attrs.define
class RecordingEngine:
    """Answers by the script, and notes each prompt."""

    prompts: list[Prompt] = attrs.field(factory=list)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply."""
        self.prompts.append(prompt)
        async for piece in AT_ONCE.generate(prompt):
            yield piece


def test_the_conversation_survives_the_end_of_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    """The context in use expires, another takes its place, and the next answer is written with all that was said."""
    engine = RecordingEngine()
    shown = show(capsys, engine)
    (first,) = find(rf"on_create: ({ID}) \(session", shown)
    (expired,) = find(rf"({ID}) has expired", shown)
    (recreated,) = find(rf"on_recreate \(gone\): ({ID}), from the transcript", shown)
    (last,) = find(rf"({ID}) holds 11 of the 11 messages", shown)
    assert first == expired != recreated == last
    (prompt,) = (prompt for prompt in engine.prompts if prompt.question[-1].text == "Is the shade washable?")
    said = [message.text for message in (*prompt.context, *prompt.question) if message.role == "user"]
    turns = ["How long is the lamp guaranteed?", "And who pays the postage?", "Question A", "Question B"]
    assert said == [*turns, "Is the shade washable?"]


@pytest.mark.parametrize("questions", [1, 12])
def test_counts_add_up(capsys: pytest.CaptureFixture[str], questions: int) -> None:
    """Each question of the batch is asked and answered once; cached and new tokens make up each sum of tokens."""
    engine = RecordingEngine()
    text = " ".join(show(capsys, engine, questions=questions).replace(",", "").split())
    asked = [prompt.question[-1].text for prompt in engine.prompts]
    assert sorted(question for question in asked if "clause" in question) == sorted(
        f"What does clause {number} say?" for number in range(1, questions + 1)
    )
    calls = re.findall(r"(\d+) tokens in \((\d+) cached \+ (\d+) new\)", text)
    assert len(calls) == 4
    assert all(int(tokens) == int(cached) + int(new) for tokens, cached, new in calls)
    handbook, done, cached, output = map(
        int, find(r"\(common_prefix (\d+) tokens\).* (\d+) answers \d+ tokens in \((\d+) cached .*? (\d+) out", text)
    )
    assert (done, cached, output) == (questions, questions * handbook, questions * 8)


def test_the_bill_follows_from_the_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    """Every amount is tokens of the batch times the price shown; the sums and the saving follow."""
    text = " ".join(show(capsys, questions=40).replace(",", "").split())
    handbook, prompt, cached, fresh, output = map(
        int,
        find(
            r"\(common_prefix (\d+) tokens\).* 40 answers (\d+) tokens in \((\d+) cached \+ (\d+) new\) (\d+) out", text
        ),
    )
    price = {name: float(value) for name, value in re.findall(r"(input|cached|output|hour) (\d\.\d+)[ ;]", text)}
    bill = {
        label: (float(amount), float(other or 0))
        for label, amount, other in re.findall(r"(input|cached|output|storage|sum) (\d\.\d{4})(?: (\d\.\d{4}))?", text)
    }
    expected = {
        "input": ((handbook + fresh) * price["input"], prompt * price["input"]),
        "cached": (cached * price["cached"], 0.0),
        "output": (output * price["output"], output * price["output"]),
        "storage": (handbook * price["hour"], 0.0),
    }
    if bill["storage"][0] > 1.5 * expected["storage"][0] / 1e6:
        expected["storage"] = (2 * handbook * price["hour"], 0.0)  # the demo ran into the next clock hour
    expected["sum"] = (sum(amount for amount, _ in expected.values()), sum(other for _, other in expected.values()))
    assert bill == {label: (round(a / 1e6, 4), round(b / 1e6, 4)) for label, (a, b) in expected.items()}
    total, without = expected["sum"]
    calls, cost, plain, saved = find(r"(\d+) calls cost (\S+) without a context (\S+): caching saved (\d+)%", text)
    assert (calls, float(cost), float(plain)) == ("40", *bill["sum"])
    assert int(saved) == round(100 * (1 - total / without))
    new, uncached = find(r"new tokens: (\d+); without the cache (\d+)", text)
    assert (int(new), int(uncached)) == (handbook + fresh, prompt)


class TerminalStream(io.StringIO):
    """A stream that passes for a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_bar_where_both_streams_are_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the batch has a bar; with stderr elsewhere, a line for each quarter in its place."""
    shown = {}
    for errors in (TerminalStream(), io.StringIO()):
        output = TerminalStream()
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        demo.run(argparse.Namespace(), Terminal(), engine=AT_ONCE, questions=12)
        shown[errors.isatty()] = (
            re.findall(r"(\d+) of 12 answers", ESCAPES.sub("", output.getvalue())),
            "12/12" in ESCAPES.sub("", errors.getvalue()),
        )
    assert shown == {True: ([], True), False: (["3", "6", "9"], False)}


@attrs.frozen
class FailingEngine:
    """Answers, but one question fails with an error."""

    question: str
    error: Exception

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply, or fail."""
        if prompt.question[-1].text == self.question:
            raise self.error
        yield "Yes."


@pytest.mark.parametrize(
    ("engine", "kind", "section"),
    [
        (FailingEngine("Question A", ValueError("no answer")), InternalServerError, "2."),
        (FailingEngine("What does clause 3 say?", BadRequestError("no clause", status=400)), BadRequestError, "4."),
    ],
    ids=["two turns", "batch"],
)
def test_failure_in_a_section(
    capsys: pytest.CaptureFixture[str], engine: Engine, kind: type[CtxCacheError], section: str
) -> None:
    """A call that fails beside others ends the demo by its own error, not a group."""
    with pytest.raises(kind):
        demo.run(argparse.Namespace(), Terminal(), engine=engine, questions=12)
    headings = re.findall(r"^(\d\.) ", capsys.readouterr().out, re.M)
    assert headings[-1] == section


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
