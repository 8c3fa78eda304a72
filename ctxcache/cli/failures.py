"""What a failed command says, and its exit code."""

from typing import Final

from ..errors import ContextGoneError, CtxCacheError, InvalidInputError, StreamInterruptedError

__all__ = ["BROKEN_PIPE", "FAILED", "INTERRUPTED", "USAGE", "describe", "exit_code"]

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # by Ctrl-C: 128 + SIGINT, as shells count
BROKEN_PIPE: Final = 141  # the reader of our output left: 128 + SIGPIPE


def exit_code(error: CtxCacheError) -> int:
    """Return 2 where nothing was sent because of what the user gave, else 1."""
    return USAGE if isinstance(error, InvalidInputError) else FAILED


def describe(error: CtxCacheError) -> str:
    """Return what to tell the user."""
    # Many services put the request id into the message, too.
    text = error.message if (error.request_id or "") in error.message else str(error)
    if isinstance(error, ContextGoneError):
        return f"the context is gone, make it again with `ctxcache create`: {text}"
    if isinstance(error, StreamInterruptedError):
        return f"the answer is incomplete: {text}"
    return text
