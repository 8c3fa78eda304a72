"""Exit codes, and the wording of failures."""

from typing import Final

from ..errors import (
    AuthenticationError,
    BadRequestError,
    ContextGoneError,
    CtxCacheError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    StreamInterruptedError,
)

__all__ = ["BROKEN_PIPE", "FAILED", "HOPELESS", "INTERRUPTED", "USAGE", "describe", "exit_code", "is_permanent"]

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # by Ctrl-C: 128 + SIGINT, as shells count
BROKEN_PIPE: Final = 141  # the reader of our output left: 128 + SIGPIPE

# Every further call with the same key, model and context would fail like this.
HOPELESS: Final = (AuthenticationError, NotFoundError, PermissionDeniedError)


def exit_code(error: CtxCacheError) -> int:
    """Return 2 for bad input, of which nothing was sent, else 1."""
    return USAGE if isinstance(error, InvalidInputError) else FAILED


def is_permanent(error: CtxCacheError) -> bool:
    """Whether the same call would fail again, unless the request, the key or the account changes."""
    permanent = (BadRequestError, InvalidInputError, QuotaExceededError, *HOPELESS)
    return isinstance(error, permanent) and not isinstance(error, ContextGoneError)


def describe(error: CtxCacheError) -> str:
    """Return the error in words, and say what to do where that is known."""
    # Many services repeat the request id in the message.
    text = error.message if (error.request_id or "") in error.message else str(error)
    if isinstance(error, ContextGoneError):
        return f"the context is gone, make it again with `ctxcache create`: {text}"
    if isinstance(error, StreamInterruptedError):
        return f"the answer is incomplete: {text}"
    return text
