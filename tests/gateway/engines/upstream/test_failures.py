"""Errors of a server in the service's words, without a server."""

import pytest

from ctxcache.errors import (
    APIConnectionError,
    APITimeoutError,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    ProtocolError,
    RateLimitError,
    SessionError,
    StreamInterruptedError,
)
from ctxcache.gateway.engines.upstream import failures

LATE = APITimeoutError.of("head", 5, sent=True)


@pytest.mark.parametrize(
    ("error", "blamed", "elsewhere", "status"),
    [
        (APIConnectionError("bad certificate", hopeless=True), True, True, 503),
        (APIConnectionError("refused"), True, True, 503),
        (APIConnectionError("no file descriptor", local=True), False, False, 503),
        (APIConnectionError("lost", sent=True), True, True, 503),
        (APITimeoutError.of("connect", 5), True, True, 504),
        (LATE, True, False, 504),
        (StreamInterruptedError("late", cause=LATE), True, False, 504),
        (StreamInterruptedError("cut", cause=APIConnectionError("cut", sent=True)), True, True, 502),
        (ProtocolError("HTML"), True, True, 502),
        (InternalServerError("no", status=503), True, True, 503),
        (InternalServerError("no", status=500), False, False, 502),
        (RateLimitError("no", status=429), False, False, 429),
        (SessionError("closed"), False, False, 502),
        (InvalidInputError.of("user", "\ud800", "text"), False, False, 400),
    ],
)
def test_who_is_to_blame(error: CtxCacheError, blamed: bool, elsewhere: bool, status: int) -> None:
    """Trouble with the server itself counts against it; another one is asked unless time has run out."""
    assert failures.blames_server(error) is blamed
    assert failures.may_go_elsewhere(error) is elsewhere
    assert failures.as_refusal(error, "m").status == status


def test_a_server_that_hung_up() -> None:
    """A sent request without an answer may be sent again over a new connection; a refused one, or a late answer not."""
    lost = APIConnectionError("lost", sent=True)
    assert failures.hung_up(lost)
    assert failures.hung_up(StreamInterruptedError("cut", cause=lost))
    refused = APIConnectionError("refused")
    for error in (refused, LATE, ProtocolError("HTML"), StreamInterruptedError("late", cause=LATE)):
        assert not failures.hung_up(error)


def test_no_server_can_be_reached() -> None:
    """The refusal says when to come back."""
    assert failures.unreachable(3).retry_after == 3
    assert failures.unreachable().status == 503
