"""What a Prefix and a Conversation do alike with their contexts."""

import pytest

from ctxcache import CtxCacheError, InvalidInputError, system, user
from ctxcache.managed import Conversation, Prefix
from ctxcache.managed.keeper import ContextKeeper, Replaced
from ctxcache.models import ContextRequest


@pytest.fixture
def contexts_for(session, clock):
    """Make the contexts of one managed object, on `session` and `clock`."""

    def make(mode="common_prefix", is_gone=None):
        asked = ContextRequest(model="m", messages=[system("The manual.")], mode=mode, ttl=3600)
        return ContextKeeper(session, asked, margin=30, is_gone=is_gone, clock=clock)

    return make


@pytest.mark.parametrize("kind", [Prefix, Conversation])
def test_what_is_no_session_is_not_shown(kind):
    """It may be the key, given by mistake."""
    with pytest.raises(InvalidInputError) as caught:
        kind("sk-a-key-by-mistake", model="m", messages=[user("?")])
    assert caught.value.field == "session"
    assert "sk-" not in f"{caught.value} {caught.value.value}"


@pytest.mark.parametrize("mode", ["common_prefix", "session"])
async def test_a_create_is_booked_before_it_is_told(contexts_for, service, clock, told, mode):
    """It counts from the moment it was sent; the hooks hear of it when it is in use."""
    contexts = contexts_for(mode)
    context, expiry = await contexts.create((user("Another beginning."),))
    [create] = service.creates
    assert (create["mode"], create["ttl"], create["messages"][0]["content"]) == (mode, 3600, "Another beginning.")
    assert (contexts.ledger.creates, expiry.expires_at, told) == (1, clock() + 3600, [])
    contexts.tell_created(context, expiry.ttl, None)
    contexts.tell_created(context, expiry.ttl, Replaced("ctx-0", "gone"))
    assert [name for name, _ in told] == ["on_create", "on_recreate"]
    assert (told[1][1].old_id, told[1][1].reason) == ("ctx-0", "gone")


async def test_a_predicate_that_raises_says_nothing(contexts_for, log_lines):
    """The caller gets the service's error, not the predicate's."""

    def broken(error):
        raise LookupError("no such code")

    log_lines("ERROR")
    assert not contexts_for(is_gone=broken).is_gone(CtxCacheError("?"))
    assert log_lines("ERROR")
