"""`repeat_budget`: repeats stay a share of the calls."""

from ctxcache.managed.prefix.repeat_budget import SHARE, RepeatBudget


def test_repeats_are_a_share_of_the_calls():
    """However many are wanted: a quarter, beside a small reserve."""
    budget = RepeatBudget()
    repeats = 0
    for _ in range(4000):
        budget.tokens += SHARE
        repeats += sum(budget.withdraw() for _ in range(3))
    assert repeats == 4000 / 4 + 10


def test_a_few_repeats_are_always_there():
    """A prefix that is hardly used may be in trouble, too."""
    budget = RepeatBudget()
    assert [budget.withdraw() for _ in range(11)] == [True] * 10 + [False]


def test_what_was_saved_is_bounded():
    """A long quiet time allows no storm."""
    budget = RepeatBudget()
    for _ in range(100_000):
        budget.tokens += SHARE
    assert sum(budget.withdraw() for _ in range(100_000)) == 2000
