"""The wording of failures, and exit codes."""

from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import APIConnectionError, CtxCacheError, InvalidInputError, StreamInterruptedError
from ctxcache.cli.failures import describe, exit_code

from ..hostile import Hostile, answer

Run = Callable[..., Any]


@pytest.mark.parametrize(("error", "code"), [(InvalidInputError("ttl"), 2), (APIConnectionError("reset"), 1)])
def test_exit_codes(error: CtxCacheError, code: int) -> None:
    """Bad input, of which nothing was sent, is exit code 2; every other error is 1."""
    assert exit_code(error) == code


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


def test_request_id_is_told(peer: Hostile, run: Run) -> None:
    """The request id is added to a message without one."""
    peer.plays([answer({"error": {"code": "AccessDenied", "message": "no"}}, "X-Request-Id: req-9", status="403 No")])
    failed = run("chat", "ctx-1", "hi")
    assert (failed.code, failed.err) == (1, "ctxcache: 403 AccessDenied: no (request id req-9)\n")
