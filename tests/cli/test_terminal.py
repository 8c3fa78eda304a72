"""Styled on a terminal, plain everywhere else."""

import builtins
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ctxcache.cli.terminal import Terminal, one_line


class Tty(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


OnTty: TypeAlias = Callable[[], tuple[Terminal, Tty]]


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Terminal, Tty]]:
    """Put a terminal in stdout's place (when called: between fixtures and test, pytest puts its own there)."""

    def replace() -> tuple[Terminal, Tty]:
        stream = Tty()
        monkeypatch.setattr(sys, "stdout", stream)
        return Terminal(), stream

    return replace


def test_styled_on_a_terminal(tty: OnTty) -> None:
    """On a terminal with rich, text with a style is styled, and other text is written unchanged."""
    terminal, shown = tty()
    terminal.out.write("plain\t[bold]:smile: 1\n")
    assert shown.getvalue() == "plain\t[bold]:smile: 1\n"
    terminal.out.line("[bold]:smile: 1", "bold")
    assert shown.getvalue().removeprefix("plain\t[bold]:smile: 1\n") == "\x1b[1m[bold]:smile: 1\x1b[0m\n"


def test_markdown(tty: OnTty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where text is styled, Markdown is laid out, its code never wrapped; elsewhere it stays as it is."""
    terminal, shown = tty()
    terminal.out.markdown("# A **page**\x1b[2J")
    assert "page" in shown.getvalue()
    assert "**" not in shown.getvalue()
    assert "\x1b[2J" not in shown.getvalue()
    terminal, shown = tty()
    code = f"first()\n    second({'x' * 200})\n"
    terminal.out.markdown(f"Text.\n\n```python\n{code}```\n```text\nMore.\n```\n")
    assert code in re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    assert "```" not in shown.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, shown = tty()
    terminal.out.markdown("# A **page**")
    assert shown.getvalue() == "# A **page**"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_on_request(tty: OnTty, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """With `NO_COLOR`, or on a terminal without styles, text is plain."""
    monkeypatch.setenv(name, value)
    terminal, shown = tty()
    terminal.out.line("text", "bold")
    assert shown.getvalue() == "text\n"


def test_plain_without_rich(tty: OnTty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich text is plain on a terminal."""
    usual = builtins.__import__

    def without_rich(name: str, *args: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return usual(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    terminal, shown = tty()
    terminal.out.line("text", "bold")
    assert shown.getvalue() == "text\n"


def test_plain_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets no escape codes, whatever the environment says."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = Terminal()
    terminal.out.line("text", "bold")
    terminal.note("note")
    terminal.error("error")
    assert capsys.readouterr() == ("text\n", "note\nctxcache: error\n")


def test_escape_sequences_of_a_server_are_not_obeyed(tty: OnTty) -> None:
    """On a terminal, control characters in a text are shown, not obeyed."""
    terminal, shown = tty()
    terminal.out.write("a\x1b]0;title\x07b\x9bc\x7f\r\n\td")
    assert shown.getvalue() == "a␛]0;title␇b\ufffdc␡\n\td"


def test_text_in_a_pipe_is_untouched(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a text is unchanged."""
    Terminal().out.write("a\x1b[1mb\rc")
    assert capsys.readouterr().out == "a\x1b[1mb\rc"


def test_what_the_locale_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that stdout cannot encode is written as an escape, and so is a lone surrogate."""
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding="latin-1"))
    Terminal().out.write("é 你 \ud800\n")
    assert bytes_out.getvalue() == b"\xe9 \\u4f60 \\ud800\n"


def test_errors_and_notes_begin_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A half-written line is ended, once, before a remark or an error."""
    terminal = Terminal()
    terminal.out.write("half an")
    terminal.out.write("")
    terminal.note("note")
    terminal.error("error")
    assert capsys.readouterr().out == "half an\n"


def test_one_line() -> None:
    """An error's text is one line without control characters."""
    assert one_line("a\n  b\x1b[1m\r\n") == "a b␛[1m"
    assert one_line("naïve 漢字\u3000😀") == "naïve 漢字 😀"
    assert one_line("a\u202eb\u2066c\u200bd\u2028e\ud800\U000e0041") == "a\\u202eb\\u2066c\\u200bd e\\ud800\\ue0041"


@pytest.mark.parametrize(("columns", "width"), [("30", 40), ("72", 72), ("200", 100)])
def test_width_of_a_terminal(tty: OnTty, monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    """Text is laid out for the terminal's width, within what can be laid out and read."""
    monkeypatch.setenv("COLUMNS", columns)
    assert tty()[0].width == width


def test_width_of_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of a pipe is 80."""
    monkeypatch.setenv("COLUMNS", "200")
    assert Terminal().width == 80


def test_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that others wrote, as argparse does, is flushed; a closed stream needs no flush."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    terminal = Terminal()
    stream.write("help")
    terminal.flush()
    assert written.getvalue() == b"help"


def test_abandoned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing arrives on a stream that was abandoned, and its buffer is no error at the exit."""
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        terminal = Terminal()
        terminal.out.line("heard")
        terminal.abandon()
        terminal.out.line("unheard")
        terminal.error("unheard")
    assert (tmp_path / "out").read_text() == "heard\n"
    assert (tmp_path / "err").read_text() == ""
