"""`costs`: tokens are counted exactly, storage by clock hours, and one line says whether caching paid."""

import math
import pickle
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import InvalidInputError, Usage
from ctxcache.managed.costs import Cost, Ledger, Prices
from ctxcache.models import PromptTokensDetails

HOUR = 3600.0
UNIT = 1_000_000  # at a price of 1 for a million tokens, so many cost 1
STORAGE_ONLY = Prices(0, 0, 0, 1)


def usage(prompt: int, cached: int = 0, completion: int = 0) -> Usage:
    """What a call was counted at."""
    details = PromptTokensDetails(cached_tokens=cached)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=details)


# --- prices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["input", "cached", "output", "storage_per_hour"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_prices_are_checked(field: str, value: Any) -> None:
    """What is not a number from 0 up is refused, with the name of the field."""
    with pytest.raises(InvalidInputError) as refused:
        Prices(**{"input": 1, "cached": 1, "output": 1, field: value})
    assert refused.value.field == f"Prices.{field}"


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_counted_once() -> None:
    """Cached tokens are part of the prompt's: each is paid once, at the one price or at the other; creates count."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 0, HOUR)
    for _ in range(3):
        ledger.used("ctx-1", usage(2 * UNIT, UNIT, UNIT), 0)
    cost = ledger.cost(Prices(1, 0.25, 3), 0)
    assert (cost.input, cost.cached, cost.output, cost.storage) == (1 + 3 * 1, 3 * 0.25, 3 * 3, 0)
    assert cost.total == 13.75
    assert cost.without == 3 * 2 * 1 + 3 * 3
    assert cost.saved == 1.25
    assert ledger.usage == usage(7 * UNIT, 3 * UNIT, 3 * UNIT) + Usage()
    assert (ledger.calls, ledger.creates) == (3, 1)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=30))
def test_sums_are_exact(calls: list[tuple[int, int, int]]) -> None:
    """Fresh, cached and output tokens are exact sums, whatever the calls were."""
    ledger = Ledger()
    for fresh, cached, completion in calls:
        ledger.used("ctx-1", usage(fresh + cached, cached, completion), 0)
    told = ledger.usage
    assert (told.fresh_tokens, told.cached_tokens, told.completion_tokens) == tuple(
        sum(column) for column in (zip(*calls, strict=True) if calls else ([], [], []))
    )


def test_calls_without_usage_are_in_no_sum() -> None:
    """A call for which the service sent no usage is counted as a call, and said to be missing in the sums."""
    ledger = Ledger()
    ledger.used("ctx-1", None, 0)
    ledger.used("ctx-1", usage(UNIT), 0)
    cost = ledger.cost(Prices(1, 0, 0), 0)
    assert (cost.calls, cost.uncounted, cost.total, cost.without) == (2, 1, 1, 1)
    assert str(cost).startswith("2 calls (1 of them not counted, for want of usage) cost 1.0000, ")


# --- the uncached -----------------------------------------------------------------------------------------------------


def test_uncached_repeat_is_reported_once() -> None:
    """The first use may be uncached, and one without usage says nothing; a repeat use is reported, once a context."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(10), 0, HOUR)
    assert not ledger.used("ctx-1", usage(10), 0)
    assert not ledger.used("ctx-1", None, 0)
    assert not ledger.used("ctx-1", usage(10, 5), 0)
    assert ledger.used("ctx-1", usage(10), 0)
    assert not ledger.used("ctx-1", usage(10), 0)
    assert not ledger.used("ctx-2", usage(10), 0)
    assert ledger.used("ctx-2", usage(10), 0)


# --- storage ----------------------------------------------------------------------------------------------------------


def storage(ledger: Ledger, now: float) -> float:
    """Token-hours stored, in millions."""
    return ledger.cost(STORAGE_ONLY, now).storage


def test_each_clock_hour_that_was_begun() -> None:
    """A context of one second before the full hour is billed for that hour and, from then on, for the next."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), HOUR - 1, 2 * HOUR)
    assert [storage(ledger, now) for now in (HOUR - 1, HOUR, 2 * HOUR, 3 * HOUR, 99 * HOUR)] == [1, 2, 3, 3, 3]


def test_ends_with_the_hour_it_expires_in() -> None:
    """An expiry at the full hour does not begin another; every use puts it off."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 0, HOUR)
    assert storage(ledger, 99 * HOUR) == 1
    ledger.used("ctx-1", usage(UNIT, UNIT), 1)
    assert storage(ledger, 99 * HOUR) == 2
    ledger.used("ctx-1", usage(UNIT, UNIT), HOUR)
    assert storage(ledger, 99 * HOUR) == 2


def test_the_most_tokens_of_the_hour() -> None:
    """A session context grows: each hour counts the most it held then, the earlier hours stay as they were."""
    ledger = Ledger(grows=True)
    ledger.created("ctx-1", usage(UNIT), 0, 10 * HOUR)
    ledger.used("ctx-1", usage(2 * UNIT, 0, UNIT), 10)
    ledger.used("ctx-1", usage(UNIT), 20)  # truncated: the hour has had more
    assert storage(ledger, 30) == 3
    ledger.used("ctx-1", usage(5 * UNIT), 2 * HOUR)
    assert storage(ledger, 2 * HOUR) == 3 + 3 + 5


def test_questions_do_not_make_a_prefix_grow() -> None:
    """On a prefix nothing is added; where the create said no usage, what was read from the cache is what is stored."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 0, HOUR)
    ledger.used("ctx-1", usage(9 * UNIT, UNIT, 9 * UNIT), 1)
    assert storage(ledger, 1) == 1
    ledger = Ledger()
    ledger.created("ctx-1", None, 0, HOUR)
    ledger.used("ctx-1", usage(9 * UNIT, 2 * UNIT), 1)
    assert storage(ledger, 1) == 2


def test_replaced_contexts_live_on() -> None:
    """No endpoint ends a context: a replaced one is billed until its last use and ttl, beside the new one."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 0, 3 * HOUR)
    ledger.created("ctx-2", usage(UNIT), HOUR, 3 * HOUR)
    assert [storage(ledger, hour * HOUR) for hour in range(6)] == [1, 3, 5, 6, 6, 6]


def test_contexts_of_others_are_not_stored_here() -> None:
    """What a context cost that was created elsewhere stands in other books: here are its uses alone."""
    ledger = Ledger()
    ledger.used("ctx-1", usage(UNIT, UNIT), 0)
    cost = ledger.cost(Prices(1, 0.5, 0, 100), 99 * HOUR)
    assert (cost.total, cost.without, cost.break_even_calls) == (0.5, 1, 1)


def plain_storage(lives: list[tuple[float, float, list[float]]], tokens: int, now: float) -> int:
    """The same by counting: for each context, each clock hour in which it lives."""
    hours = 0
    for created, ttl, uses in lives:
        end = max([created, *uses]) + ttl
        hours += len({h for h in range(int(now // HOUR) + 1) if h * HOUR < end and (h + 1) * HOUR > created})
    return hours * tokens


@given(
    st.lists(st.tuples(st.floats(0, 9000), st.integers(1, 5), st.lists(st.floats(0, 9000), max_size=2)), max_size=60)
)
def test_many_recreations(steps: list[tuple[float, int, list[float]]]) -> None:
    """However often a context was re-created, the sums are those of counting every hour of every context."""
    ledger, lives, now = Ledger(), [], 0.0
    for number, (pause, ttl, uses) in enumerate(steps):
        now += pause
        ledger.created(f"ctx-{number}", usage(7), now, ttl * HOUR)
        lives.append((now, ttl * HOUR, at := []))
        for wait in uses:
            now += wait
            at.append(now)
            ledger.used(f"ctx-{number}", usage(7), now)
    for later in (now, now + 2 * HOUR, now + 99 * HOUR):
        assert round(storage(ledger, later) * UNIT) == plain_storage(lives, 7, later)


def test_books_stay_small() -> None:
    """A year of re-creations every half hour, each context living for seven days, keeps no more than hours to come."""
    ledger = Ledger()
    sizes = []
    for number in range(365 * 48):
        ledger.created(f"ctx-{number}", usage(UNIT), number * HOUR / 2, 7 * 24 * HOUR)
        if number % 240 == 0:
            sizes.append(len(pickle.dumps(ledger)))
    assert max(sizes) < 30 * (7 * 24 + 50)  # a few bytes for each hour to come, and for each open account
    assert (
        storage(ledger, 366 * 24 * HOUR + 7 * 24 * HOUR) == 365 * 48 * 7 * 24 + 365 * 24
    )  # an odd one ends in an hour


def test_odd_clocks_and_lives() -> None:
    """A clock that goes back and an endless ttl do no harm."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 10 * HOUR, float("inf"))
    ledger.used("ctx-1", usage(UNIT, UNIT), 5 * HOUR)
    assert storage(ledger, 5 * HOUR) == 0
    assert storage(ledger, 10 * HOUR) == 1
    assert storage(ledger, sys.maxsize) < 9000


def test_uses_entered_before_their_create() -> None:
    """No hour is counted twice: a file of answers has the create with whichever answer came first."""
    ledger = Ledger()
    for hour in (7, 5, 9):
        ledger.used("ctx-1", usage(UNIT, UNIT), hour * HOUR)
    ledger.created("ctx-1", usage(UNIT), 5 * HOUR, HOUR)
    assert storage(ledger, 100 * HOUR) == 5


def test_an_id_that_is_given_twice() -> None:
    """To the books that is one context, which lived on: no hour that was counted is lost."""
    ledger = Ledger()
    for hour in (0, 2):
        ledger.created("ctx-1", usage(UNIT), hour * HOUR, HOUR)
    assert storage(ledger, 100 * HOUR) == 3


def test_as_many_open_accounts_as_one_wants() -> None:
    """A context of books without a bound is billed for every use, however many others came between."""
    ledger = Ledger(open_accounts=math.inf)
    for number in range(40):
        ledger.created(f"ctx-{number}", usage(UNIT), 0, HOUR)
    ledger.used("ctx-0", usage(UNIT, UNIT), HOUR)
    assert storage(ledger, 100 * HOUR) == 41


# --- did it pay? ------------------------------------------------------------------------------------------------------


def asked(calls: int, prices: Prices) -> Cost:
    """So many calls on a prefix of a million tokens, each with 1,000 more and an answer of 1,000."""
    ledger = Ledger()
    ledger.created("ctx-1", usage(UNIT), 0, HOUR)
    for _ in range(calls):
        ledger.used("ctx-1", usage(UNIT + 1000, UNIT, 1000), 0)
    return ledger.cost(prices, 0)


def test_from_how_many_calls_on() -> None:
    """The break-even is the first number of calls at which caching is cheaper; before it, it is not."""
    prices = Prices(1, 0.4, 2, 0.3)
    whole = [asked(calls, prices) for calls in range(1, 6)]
    assert {cost.break_even_calls for cost in whole} == {3}  # 1.3 more once, 0.6 less a call
    assert [cost.saved > 0 for cost in whole] == [False, False, True, True, True]
    assert all(before.saved < after.saved for before, after in pairwise(whole))


@pytest.mark.parametrize(
    ("calls", "prices", "told"),
    [
        (
            120,
            Prices(1, 0.2, 2, 0.3),
            "120 calls cost 25.6600, without a context 120.36: caching saved 79%, it pays from call 2 on",
        ),
        (
            1,
            Prices(1, 0.2, 2),
            "1 call cost 1.2030, without a context 1.0030: caching cost 20% more, it pays from call 2 on",
        ),
        (
            2,
            Prices(1, 1, 2),
            "2 calls cost 3.0060, without a context 2.0060: caching cost 50% more, and further calls like these do "
            "not change that",
        ),
        (0, Prices(0.004, 0, 0), "0 calls so far; the context cost 0.00400"),
        (3, Prices(0, 0, 0), "3 calls cost 0.0000, without a context 0.0000: caching saved nothing"),
    ],
)
def test_one_line_that_answers(calls: int, prices: Prices, told: str) -> None:
    """`str(cost)` says what it cost, what it would have cost, whether caching paid and from when on."""
    assert str(asked(calls, prices)) == told
