"""`keeper`: creates contexts, keeps their books, reports on them."""

import asyncio

import pytest

from ctxcache import ContextGoneError, CtxCacheError, InvalidInputError, Usage, system, user
from ctxcache.managed import Conversation, Prefix
from ctxcache.managed.keeper import ContextKeeper, Replaced
from ctxcache.models import ContextRequest


@pytest.fixture
def keeper_for(session, clock):
    """Make the keeper of one managed object, on `session` and `clock`."""

    def make(mode="common_prefix", is_gone=None):
        template = ContextRequest(model="m", messages=[system("The manual.")], mode=mode, ttl=3600)
        return ContextKeeper(session, template, margin=30, is_gone=is_gone, clock=clock)

    return make


@pytest.mark.parametrize("kind", [Prefix, Conversation])
def test_what_is_no_session_is_not_shown(kind):
    """It may be the key, given by mistake."""
    with pytest.raises(InvalidInputError) as caught:
        kind("sk-a-key-by-mistake", model="m", messages=[user("?")])
    assert caught.value.field == "session"
    assert "sk-" not in f"{caught.value} {caught.value.value}"


@pytest.mark.parametrize("mode", ["common_prefix", "session"])
async def test_a_create_is_booked_before_it_is_told(keeper_for, service, clock, told, mode):
    """It counts from the moment it was sent; the hooks hear of it when it is in use."""
    keeper = keeper_for(mode)
    live = await keeper.create((user("Another beginning."),))
    [create] = service.creates
    assert (create["mode"], create["ttl"], create["messages"][0]["content"]) == (mode, 3600, "Another beginning.")
    assert (keeper.ledger.creates, live.expires_at, told) == (1, clock() + 3600, [])
    keeper.announce(live, None)
    keeper.announce(live, Replaced("ctx-0", "gone"))
    assert [name for name, _ in told] == ["on_create", "on_recreate"]
    assert (told[1][1].old_id, told[1][1].reason) == ("ctx-0", "gone")


async def test_a_predicate_that_raises_says_nothing(keeper_for, log_lines):
    """The caller gets the service's error, not the predicate's."""

    def broken(error):
        raise LookupError("no such code")

    log_lines("ERROR")
    assert not keeper_for(is_gone=broken).is_gone(CtxCacheError("?"))
    assert log_lines("ERROR")


async def test_without_a_predicate_the_context_error_says_gone(keeper_for):
    """And no other error does."""
    keeper = keeper_for()
    assert keeper.is_gone(ContextGoneError("gone"))
    assert not keeper.is_gone(CtxCacheError("?"))


@pytest.mark.parametrize("name", ["is_gone", "clock"])
def test_functions_are_checked(session, clock, name):
    """What cannot be called is refused by name."""
    template = ContextRequest(model="m", messages=[system("The manual.")], mode="session")
    settings = {"margin": 30, "is_gone": None, "clock": clock, name: 5}
    with pytest.raises(InvalidInputError, match=name):
        ContextKeeper(session, template, **settings)


async def test_an_uncached_repeat_use_is_a_warning(keeper_for, told, log_lines):
    """In the log and by the hook, with the likely reasons."""
    live = await keeper_for().create()
    for _ in range(3):
        live.used(Usage(prompt_tokens=7), 0.0)
    [line] = log_lines("WARNING")
    [(name, event)] = told
    assert (name, event.kind, event.context_id, event.message) == ("on_warning", "uncached", "ctx-1", line)
    assert "rolling_tokens" in line


async def test_a_create_under_way_is_known(keeper_for, service, until):
    """From when it has a connection until its end."""
    keeper = keeper_for()
    assert not keeper.create_sent
    service.creating.clear()
    creating = asyncio.create_task(keeper.create())
    await until(lambda: service.creates)
    assert keeper.create_sent
    service.creating.set()
    await creating
    assert not keeper.create_sent
