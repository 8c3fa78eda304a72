"""`ctxcache chat` without a question: a conversation on a terminal."""

import asyncio
import io
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import AsyncSession
from ctxcache.cli import conversation
from ctxcache.cli.terminal import Terminal

from ..hostile import CLOSE, SSE, STALL, Hostile, after, chunk, pieces, refusal, streamed
from .conftest import KEY, MODEL

OnTerminal = Callable[..., Any]


def test_conversation(context_id: str, on_terminal: OnTerminal, service: Any) -> None:
    """Question, streamed answer, a dim line of usage, and again on the same context; Ctrl-D ends with 0."""
    terminal = on_terminal("chat", context_id)
    terminal.expect("Ctrl-C stops an answer, Ctrl-D ends")
    for question in ("one", "two"):
        terminal.expect("you> ")
        terminal.type(f"{question}\n")
        terminal.expect(f"echo: {question} \n")
        terminal.expect("\x1b[2m")
        terminal.expect("cached + ")
    terminal.expect("you> ")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert [content for _, content in service.messages(context_id)][1::2] == ["one", "two"]


def test_ctrl_c_stops_the_answer_only(context_id: str, on_terminal: OnTerminal, service: Any) -> None:
    """Ctrl-C in an answer frees the context at once and leads back to the prompt; Ctrl-C there ends with 0."""
    terminal = on_terminal("chat", context_id)
    terminal.expect("you> ")
    terminal.type("endless story\n")
    terminal.expect("echo: endless story ")
    terminal.type("\x03")
    terminal.expect("stopped; ")
    service.until_free(context_id)  # no further question is needed for that
    terminal.expect("you> ")
    terminal.type("next\n")
    terminal.expect("echo: next \n")
    terminal.expect("you> ")
    terminal.type("\x03")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.shown


def test_ctrl_c_before_the_answer_begins(peer: Hostile, on_terminal: OnTerminal, thread: Any) -> None:
    """Ctrl-C stops an answer before the first text."""
    peer.plays([STALL], [streamed()])
    terminal = on_terminal("chat", "ctx-1")
    terminal.expect("you> ")
    terminal.type("hello\n")
    terminal.expect("hello\n")
    thread.run(peer.until(lambda: peer.posts))
    terminal.type("\x03")
    terminal.expect("stopped; ")
    terminal.expect("you> ")
    terminal.type("again\n")
    terminal.expect("Once upon a time\n")
    terminal.expect("you> ")
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_line_editing_and_history(context_id: str, on_terminal: OnTerminal) -> None:
    """The prompt edits lines, and the up arrow brings the last question back."""
    pytest.importorskip("readline")
    terminal = on_terminal("chat", context_id)
    terminal.expect("you> ")
    terminal.type("onX\x7fe\n")
    terminal.expect("echo: one \n")
    terminal.expect("you> ")
    terminal.type("\x1b[A more\n")
    terminal.expect("echo: one more \n")


def test_errors_do_not_end_it(peer: Hostile, on_terminal: OnTerminal, thread: Any) -> None:
    """After an interrupted answer or a failed call the error is shown, and the next question can be asked."""
    cut = asyncio.Event()
    peer.plays(
        [SSE, *pieces(chunk("Once")), after(cut), CLOSE], [refusal(429, "QuotaExceeded", "used up")], [streamed()]
    )
    terminal = on_terminal("chat", "ctx-1")
    terminal.expect("you> ")
    terminal.type("one\n")
    terminal.expect("Once")
    thread.call(cut.set)
    assert terminal.expect("the answer is incomplete: ").startswith("\n")
    terminal.expect("you> ")
    terminal.type("two\n")
    terminal.expect("429 QuotaExceeded: used up")
    terminal.expect("you> ")
    terminal.type("\n   \nthree\n")
    terminal.expect("Once upon a time\n")
    terminal.expect("you> ")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert len(peer.posts) == 3


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "NotFound.context_id", "the context is gone"),
        (401, "AuthenticationError", "401 AuthenticationError"),
        (403, "AccessDenied", "403 AccessDenied"),
    ],
)
def test_hopeless_errors_end_it(peer: Hostile, on_terminal: OnTerminal, status: int, code: str, told: str) -> None:
    """An error that would meet every further question ends the conversation, exit code 1."""
    peer.plays([refusal(status, code)])
    terminal = on_terminal("chat", "ctx-1")
    terminal.expect("you> ")
    terminal.type("one\n")
    terminal.expect(told)
    assert terminal.wait() == 1


def test_bad_options_are_told_before_the_prompt(service: Any, on_terminal: OnTerminal) -> None:
    """A bad option is reported before the first prompt, exit code 2."""
    for option, told in (
        (("--temperature", "3"), "temperature must be a number in [0, 2]"),
        (("--json",), "no question: --json"),
    ):
        terminal = on_terminal("chat", "ctx-1", *option)
        terminal.expect(told)
        assert terminal.wait() == 2
        assert "you>" not in terminal.shown


def test_prompt_without_interval_timers(
    context_id: str, service: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a platform has no interval timers, a conversation goes on without them."""
    monkeypatch.delattr(signal, "setitimer")
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n"))
    assert conversation.hold(AsyncSession(KEY, service.url), context_id, {"model": MODEL}, Terminal()) == 0
    assert capsys.readouterr().out == "echo: one \n"
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_answers_piped(context_id: str, on_terminal: OnTerminal, tmp_path: Any) -> None:
    """With stdin on a terminal and stdout in a file, the file gets only the answers, the terminal the prompt."""
    terminal = on_terminal("chat", context_id, redirect=f">'{tmp_path}/answers'")
    for question in ("one", "two"):
        terminal.expect("you> ")
        terminal.type(f"{question}\n")
        terminal.expect("cached + ")
    terminal.expect("you> ")
    terminal.type("\x04")
    assert terminal.wait() == 0
    assert (tmp_path / "answers").read_text() == "echo: one \necho: two \n"


@pytest.mark.parametrize(
    ("errors", "told", "redirect"),
    [("strict", "not UTF-8", ""), ("strict", "not UTF-8", ">/dev/null"), ("surrogateescape", "lone surrogates", "")],
)
def test_bytes_that_are_no_text(
    context_id: str,
    on_terminal: OnTerminal,
    monkeypatch: pytest.MonkeyPatch,
    errors: str,
    told: str,
    redirect: str,
) -> None:
    """A line that is not UTF-8 is refused and the prompt returns, however the locale decodes such bytes."""
    monkeypatch.setenv("PYTHONIOENCODING", f"utf-8:{errors}")
    terminal = on_terminal("chat", context_id, redirect=redirect)
    terminal.expect("you> ")
    terminal.type(b"\xff\xfe\n")
    terminal.expect(told)
    terminal.expect("you> ")
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_no_escape_codes_with_no_color(
    context_id: str, on_terminal: OnTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `NO_COLOR` nothing is styled on a terminal."""
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = on_terminal("chat", context_id, "hi")
    assert terminal.wait() == 0
    assert "echo: hi \n" in terminal.shown
    assert "\x1b" not in terminal.shown
