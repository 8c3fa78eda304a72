"""A conversation on the terminal: a prompt, a streamed answer, a line of usage, and again.

The event loop runs only while an answer arrives, so the prompt is Python's own `input`, with readline's editing and
history where readline exists. Ctrl-C raises `KeyboardInterrupt` at the prompt; during an answer it cancels the answer's
task, which closes the stream and frees the context.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..client.session import AsyncSession
from ..config import Retry
from ..errors import CtxCacheError
from ..models import user
from .answer import stream_answer
from .failures import FAILED, HOPELESS, describe
from .terminal import Terminal

__all__ = ["RETRY", "hold"]

# After a stopped answer the context stays busy until the service notices.
RETRY: Final = Retry(attempts=6)
_PROMPT: Final = "you> "
_HEARTBEAT: Final = 0.2  # seconds


def hold(session: AsyncSession, context_id: str, options: dict[str, Any], terminal: Terminal) -> int:
    """Ask and answer until Ctrl-D, Ctrl-C at the prompt, or an error that would meet every further question.

    Args:
        session: makes the calls, and is closed at the end.
        context_id: the context of the conversation.
        options: of every question, the model included.
        terminal: shows the conversation.

    Returns:
        the exit code.

    Raises:
        InvalidInputError: for options out of their range, before the first question.
    """
    session.chat.prepare(**options)
    _enable_editing(terminal)
    terminal.note(f"on {context_id}; Ctrl-C stops an answer, Ctrl-D ends")
    with asyncio.Runner() as runner:
        try:
            while (question := _read_question(terminal)) is not None:
                chat = {**options, "context_id": context_id, "messages": [user(question)]}
                if question.strip() and not _answer(runner, session, chat, terminal):
                    return FAILED
        finally:
            runner.run(session.aclose())
    return 0


def _answer(runner: asyncio.Runner, session: AsyncSession, chat: dict[str, Any], terminal: Terminal) -> bool:
    """Write one answer; return False if every further question would fail, too."""
    try:
        runner.run(stream_answer(session, chat, terminal))
    except KeyboardInterrupt:
        terminal.note("stopped; the service may or may not keep this turn")
    except CtxCacheError as error:
        terminal.error(describe(error))
        return not isinstance(error, HOPELESS)
    return True


def _read_question(terminal: Terminal) -> str | None:
    """Return the next question, or None at the end."""
    try:
        with _heartbeat():
            if terminal.out.is_terminal:
                return input(_PROMPT)
            terminal.err.write(_PROMPT)  # stdout is piped, and only answers go there
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
    except (EOFError, KeyboardInterrupt):
        terminal.err.line()
        return None
    except UnicodeDecodeError:
        terminal.error("the question is not UTF-8 text")
        return ""


@contextmanager
def _heartbeat() -> Iterator[None]:
    """Interrupt the wait for a key five times a second.

    A Ctrl-C between the showing of the prompt and the beginning of the wait is not noticed by CPython until something
    interrupts the wait.
    """
    if not hasattr(signal, "setitimer"):  # Windows, where the wait works differently
        yield
        return
    usual = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _HEARTBEAT, _HEARTBEAT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def _enable_editing(terminal: Terminal) -> None:
    if terminal.out.is_terminal:
        with suppress(ImportError):  # not on every platform
            import readline  # noqa: F401  # `input` uses readline once it is imported
