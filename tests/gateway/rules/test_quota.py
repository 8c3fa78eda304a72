"""How much contexts may take."""

import pytest

from ctxcache.errors import QuotaExceededError
from ctxcache.gateway.rules.quota import Quota


def test_each_bound_is_refused_by_name() -> None:
    """A refusal is a 429 `QuotaExceeded` that names the bound, and takes nothing."""
    quota = Quota(max_contexts=2, max_memory=100, max_context_memory=60)
    with pytest.raises(QuotaExceededError, match="The messages of a context may take 60 bytes of memory, and would ta"):
        quota.add_context(61)
    quota.add_context(60)
    with pytest.raises(QuotaExceededError, match="All contexts together may take 100 bytes"):
        quota.add_context(41)
    quota.add_context(40)
    with pytest.raises(QuotaExceededError, match="There are 2 contexts already") as refused:
        quota.add_context(0)
    assert (refused.value.status, refused.value.code) == (429, "QuotaExceeded")
    assert (quota.contexts, quota.memory) == (2, 100)


def test_a_context_may_grow_to_its_bound() -> None:
    """What a context holds and what comes count together."""
    quota = Quota(max_contexts=2, max_memory=100, max_context_memory=60)
    quota.add_context(50)
    quota.grow(50, 10)
    with pytest.raises(QuotaExceededError, match="would take 61"):
        quota.grow(60, 1)
    quota.grow(61, 0)  # beyond the bound by a stored reply, and nothing more is asked for
    quota.remove_context(60)
    assert (quota.contexts, quota.memory) == (0, 0)


def test_an_owner_has_a_quota_within_that_of_all() -> None:
    """What an owner takes counts for all; either bound refuses, by name, and nothing is taken at either then."""
    everything = Quota(max_contexts=3, max_memory=100, max_context_memory=60)
    ann = Quota(max_contexts=2, max_memory=50, max_context_memory=60, within=everything)
    bob = Quota(within=everything)
    ann.add_context(30)
    with pytest.raises(QuotaExceededError, match="All contexts of the key may take 50 bytes"):
        ann.add_context(30)
    bob.add_context(60)
    with pytest.raises(QuotaExceededError, match="All contexts together may take 100 bytes"):
        ann.add_context(20)
    assert [(quota.contexts, quota.memory) for quota in (ann, bob, everything)] == [(1, 30), (1, 60), (2, 90)]
    ann.add_context(0)
    with pytest.raises(QuotaExceededError, match="The key has 2 contexts already"):
        ann.add_context(0)
    with pytest.raises(QuotaExceededError, match="There are 3 contexts already"):
        bob.add_context(0)
    ann.shift(-5)
    ann.remove_context(25)
    assert [(quota.contexts, quota.memory) for quota in (ann, bob, everything)] == [(1, 0), (1, 60), (2, 60)]
