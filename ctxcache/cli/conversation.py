"""A conversation on the terminal: a prompt, a streamed answer, a line of usage, and again.

The event loop runs while an answer comes and only then; at the prompt it stands still. So the prompt is Python's own
`input`, with readline's editing and history where there is readline, and Ctrl-C means what it means everywhere: at the
prompt a `KeyboardInterrupt`, in an answer the cancelling of its task, which closes the stream and frees the context.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..client.session import AsyncSession
from ..config import Retry
from ..errors import AuthenticationError, CtxCacheError, NotFoundError, PermissionDeniedError
from ..models import user
from .answer import stream_answer
from .failures import FAILED, describe
from .terminal import Terminal

__all__ = ["RETRY", "hold"]

# A service may need a moment to notice that an answer was stopped; until then the context is busy.
RETRY: Final = Retry(attempts=6)
_PROMPT: Final = "you> "
_BEAT: Final = 0.2  # seconds
_HOPELESS: Final = (AuthenticationError, NotFoundError, PermissionDeniedError)


def hold(session: AsyncSession, options: dict[str, Any], terminal: Terminal) -> int:
    """Ask and answer until Ctrl-D, Ctrl-C at the prompt, or an error that every further question would meet.

    Raises:
        InvalidInputError: for options out of their range, before the first question.
    """
    session.chat.prepare(**{name: value for name, value in options.items() if name != "context_id"})
    _enable_editing(terminal)
    terminal.note(f"on {options['context_id']}; Ctrl-C stops an answer, Ctrl-D ends")
    with asyncio.Runner() as runner:
        try:
            while (question := _read_question(terminal)) is not None:
                if question.strip() and not _answer(runner, session, options, question, terminal):
                    return FAILED
        finally:
            runner.run(session.aclose())
    return 0


def _answer(
    runner: asyncio.Runner, session: AsyncSession, options: dict[str, Any], question: str, terminal: Terminal
) -> bool:
    """Write one answer; False where asking on makes no sense."""
    try:
        runner.run(stream_answer(session, {**options, "messages": [user(question)]}, terminal))
    except KeyboardInterrupt:
        terminal.note("stopped; the service may keep this turn or not")
    except CtxCacheError as error:
        terminal.error(describe(error))
        return not isinstance(error, _HOPELESS)
    return True


def _read_question(terminal: Terminal) -> str | None:
    """Return the next question, None at the end."""
    try:
        with _heartbeat():
            if terminal.out.is_terminal:
                return input(_PROMPT)
            terminal.err.write(_PROMPT)  # the answers are piped, and are to be alone there
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
    except (EOFError, KeyboardInterrupt):
        terminal.err.line()
        return None
    except UnicodeDecodeError:
        terminal.error("that was not UTF-8 text")
        return ""


@contextmanager
def _heartbeat() -> Iterator[None]:
    """Interrupt the wait for a key now and then.

    A Ctrl-C that comes after the prompt was shown and before that wait has begun is not noticed by CPython until
    something interrupts the wait, which nothing would.
    """
    if not hasattr(signal, "setitimer"):  # Windows, where the wait is another
        yield
        return
    usual = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _BEAT, _BEAT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def _enable_editing(terminal: Terminal) -> None:
    if terminal.out.is_terminal:
        with suppress(ImportError):  # not on every platform
            import readline  # noqa: F401  # is all it takes: `input` uses it from then on
