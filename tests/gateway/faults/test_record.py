"""The record of a call."""

import pytest

from ctxcache.gateway.faults.record import RecordedCall
from ctxcache.models import ContextRequest, system


def test_the_messages_are_those_of_the_request() -> None:
    """A request that could not be read has no messages."""
    call = RecordedCall(number=1, endpoint="create", began=0.0)
    assert call.messages == ()
    call.request = ContextRequest(model="m", messages=[system("x")])
    assert call.messages == (system("x"),)


@pytest.mark.parametrize(("status", "refused"), [(None, False), (200, False), (400, True), (503, True)])
def test_a_refusal_is_an_error(status: int | None, refused: bool) -> None:
    """A call is refused if the answer has the status of an error."""
    assert RecordedCall(number=1, endpoint="chat", began=0.0, status=status).refused is refused
