"""`live`: a context in use, its idle timer, on the safe side and never set back, and its account."""

import pytest

from ctxcache import Context, InvalidInputError, Usage
from ctxcache.managed.costs import Ledger
from ctxcache.managed.live import LiveContext, check_margin, idle_seconds

CONTEXT = Context(id="ctx-1", ttl=3600)


def live(ttl, since, **settings):
    """A context in use."""
    return LiveContext(CONTEXT, Ledger(), ttl, since, **settings)


def test_it_counts_from_the_moment_the_request_was_sent():
    """A context is gone its ttl after it began, and counts as expired a margin before."""
    context = live(3600, 1000.0)
    assert (context.ttl, context.margin, context.expires_at) == (3600, 30.0, 4600.0)
    assert (context.expired(4569.9), context.expired(4570.0), context.expired(9e9)) == (False, True, True)


def test_a_use_starts_it_anew():
    """A use slides the end to its own sending plus the ttl, even one sent in the margin."""
    context = live(3600, 1000.0)
    context.used(None, 4590.0)
    assert context.expires_at == 8190.0


def test_it_never_goes_back():
    """Answers arrive in any order; the latest sent counts."""
    context = live(3600, 1000.0)
    for sent_at in (1500.0, 1200.0, 900.0):
        context.used(None, sent_at)
    assert context.expires_at == 5100.0


@pytest.mark.parametrize(("ttl", "margin"), [(3600, 30.0), (300, 30.0), (299, 29.9), (1, 0.1)])
def test_the_margin_is_never_more_than_a_tenth(ttl, margin):
    """A context with a short ttl can be used for most of it."""
    assert live(ttl, 0.0).margin == pytest.approx(margin)
    assert not live(ttl, 0.0).expired(0.8 * ttl)


def test_an_adopted_one_begins_with_what_remains():
    """One found in a store has less than its ttl left, until it is used."""
    context = live(3600, 1000.0, remaining=100.0)
    assert context.expires_at == 1100.0
    context.used(None, 1000.0)
    assert context.expires_at == 4600.0


def test_remaining_is_never_negative():
    """What is over has nothing left."""
    context = live(3600, 1000.0)
    assert (context.remaining(1600.0), context.remaining(4600.0), context.remaining(9e9)) == (3000.0, 0.0, 0.0)
    assert repr(context) == "<LiveContext ctx-1 until 4600.000, ttl 3600 s>"


@pytest.mark.parametrize(
    ("answered", "requested", "seconds"),
    [(7200, 3600, 7200), (None, 3600, 3600), (0, 3600, 3600), (None, None, 86400), (10**400, 3600, 366 * 86400)],
)
def test_the_ttl_is_the_service_s_word_first(answered, requested, seconds):
    """What the service said, else what was asked for, else its default; a number that fits no float is capped."""
    assert idle_seconds(Context(id="ctx-1", ttl=answered), requested) == seconds


@pytest.mark.parametrize("margin", [-1, float("nan"), float("inf"), True, "30", None])
def test_a_margin_is_a_number_from_0_up(margin):
    """Anything else is refused by name."""
    with pytest.raises(InvalidInputError, match="margin"):
        check_margin(margin)


def test_no_margin_is_a_margin():
    """With 0 the last moment is used."""
    assert not live(3600, 0.0, margin=check_margin(0)).expired(3599.9)


def test_a_use_is_entered_in_the_ledger():
    """Once, with its usage."""
    ledger = Ledger()
    context = LiveContext(CONTEXT, ledger, 3600, 1000.0)
    context.used(Usage(prompt_tokens=7), 1000.0)
    context.used(None, 1000.0)
    assert (ledger.calls, ledger.usage.prompt_tokens) == (2, 7)


def test_an_uncached_repeat_use_is_reported_once():
    """The first use may be the one that fills the cache."""
    reported = []
    context = live(3600, 1000.0, on_uncached=reported.append)
    for uses in range(4):
        assert reported == ([] if uses < 2 else [context])
        context.used(Usage(prompt_tokens=7), 1000.0)
