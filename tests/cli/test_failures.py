"""The wording of failures, and exit codes."""

from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from ctxcache.cli.failures import describe, exit_code, is_permanent

from ..hostile import Hostile, answer

Run = Callable[..., Any]


@pytest.mark.parametrize(("error", "code"), [(InvalidInputError("ttl"), 2), (APIConnectionError("reset"), 1)])
def test_exit_codes(error: CtxCacheError, code: int) -> None:
    """Bad input, of which nothing was sent, is exit code 2; every other error is 1."""
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (BadRequestError("no"), True),
        (InvalidInputError("no"), True),
        (AuthenticationError("no"), True),
        (QuotaExceededError("no"), True),
        (NotFoundError("no such model"), True),
        (ContextGoneError("no such context"), False),
        (RateLimitError("slow down"), False),
        (InternalServerError("oops"), False),
        (APIConnectionError("reset"), False),
    ],
)
def test_permanent_failures(error: CtxCacheError, permanent: bool) -> None:
    """A failure is permanent if the request, the key or the account must change first."""
    assert is_permanent(error) is permanent


def test_incomplete_answer() -> None:
    """An interrupted stream is called an incomplete answer."""
    assert describe(StreamInterruptedError("reset")) == "the answer is incomplete: reset"


def test_context_that_is_gone(context_id: str, service: Any, run: Run) -> None:
    """An expired context is named, with the way to replace it; the request id appears once."""
    service.expire(context_id)
    failed = run("chat", context_id, "hi")
    assert failed.code == 1
    told = "ctxcache: the context is gone, make it again with `ctxcache create`: 404 NotFound.context_id: "
    assert failed.err.startswith(told)
    assert failed.err.lower().count("request id") == 1


@pytest.mark.parametrize("command", ["chat", "create"])
def test_request_id_with_control_characters(peer: Hostile, run: Run, command: str) -> None:
    """A request id, a code and a message from the server cannot forge a line or move the cursor."""
    forged = "req-1\x1b[2K\x9b\u202e\u2028ctxcache: all is well"
    envelope = {"error": {"code": forged, "message": f"no\n{forged}"}}
    peer.plays([answer(envelope, "X-Request-Id: req\x0b-2", status="403 No")])
    failed = run(*{"chat": ("chat", "ctx-1", "hi"), "create": ("create", "--system", "x")}[command], "-v")
    assert failed.code == 1
    shown = failed.out + failed.err.replace("\n", "")
    assert all(character.isprintable() for character in shown)
    assert all(line.startswith("ctxcache: ") for line in failed.err.splitlines())


def test_request_id_is_told(peer: Hostile, run: Run) -> None:
    """The request id is added to a message without one."""
    peer.plays([answer({"error": {"code": "AccessDenied", "message": "no"}}, "X-Request-Id: req-9", status="403 No")])
    failed = run("chat", "ctx-1", "hi")
    assert (failed.code, failed.err) == (1, "ctxcache: 403 AccessDenied: no (request id req-9)\n")
