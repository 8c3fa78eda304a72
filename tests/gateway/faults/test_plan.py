"""Which faults strike a call."""

from typing import Any

import pytest

from ctxcache.errors import RateLimitError
from ctxcache.gateway.faults.fault import Fault
from ctxcache.gateway.faults.plan import Limiter, Plan


def struck(calls: int, **when: Any) -> list[int]:
    """The numbers of the chats that a fault strikes."""
    plan = Plan(lambda _: None)
    plan.set(Fault("fail", status=503, **when))
    return [number for number in range(1, calls + 1) if plan.strike("chat")]


@pytest.mark.parametrize(
    ("when", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"times": 2}, [1, 2]),
        ({"nth": 3}, [3]),
        ({"nth": 3, "times": 2}, [3, 4]),
        ({"probability": 0}, []),
        ({"probability": 1, "times": 2}, [1, 2]),
        ({"on": "create"}, []),
    ],
)
def test_which_calls_are_struck(when: Any, numbers: list[int]) -> None:
    """A fault strikes every call, or the calls that its options choose."""
    assert struck(5, **when) == numbers


def test_a_probability_with_a_seed() -> None:
    """The share of the calls is that of the probability; the same seed strikes the same calls, another others."""
    numbers = struck(1000, probability=0.1, seed=3)
    assert 70 < len(numbers) < 130
    assert numbers == struck(1000, probability=0.1, seed=3)
    assert numbers != struck(1000, probability=0.1)


def test_a_plan_is_empty_once_every_fault_is_spent() -> None:
    """A fault that will strike no more is forgotten, so that the next call pays nothing; one healed as well."""
    plan = Plan(lambda _: None)
    assert not plan
    spent, healed = plan.set(Fault("busy", times=1)), plan.set(Fault("evict", nth=7))
    assert plan.strike("create") == []
    assert plan.strike("chat") == [spent]
    assert plan
    plan.heal(healed)
    plan.heal(healed)
    assert not plan
    assert (spent.struck, healed.calls, healed.struck) == (1, 2, 0)


def test_faults_add_up() -> None:
    """A call is struck by every fault that concerns it, in the order in which they were set; `heal` ends them all."""
    plan = Plan(lambda _: None)
    settings = [plan.set(Fault("delay", seconds=1)), plan.set(Fault("evict")), plan.set(Fault("busy"))]
    assert plan.strike("chat") == settings
    assert plan.strike("create") == settings[:2]
    plan.heal()
    assert plan.strike("chat") == []


@pytest.mark.parametrize("faults", ["busy", Fault("busy"), ["busy"], [Fault("busy")]])
def test_a_plan_begins_with_faults(faults: Any) -> None:
    """A plan takes faults, each a line or a value; a single one needs no list."""
    assert [setting.fault.kind for setting in Plan(lambda _: None, faults).strike("chat")] == ["busy"]


def test_an_outage_is_told_once() -> None:
    """A constant outage is told when it begins, and the end when the last one is healed; one of some calls is not."""
    told: list[bool] = []
    plan = Plan(told.append)
    plan.set(Fault("outage", nth=2))
    plan.heal()
    assert told == []
    one, two = plan.set(Fault("outage")), plan.set(Fault("outage"))
    plan.heal(one)
    assert False not in told
    plan.heal(two)
    assert told[-1] is False
    assert not plan.has_outage


def test_calls_a_minute() -> None:
    """Beyond `rpm` calls in any minute a call is refused, with a pause that is just long enough."""
    limiter = Limiter(Fault("limits", rpm=2))
    assert [limiter.enter(now) for now in (0.0, 10.0)] == [None, None]
    refused = limiter.enter(15)
    assert isinstance(refused, RateLimitError)
    assert (refused.status, refused.retry_after) == (429, 45)
    assert limiter.enter(59.9) is not None
    assert limiter.enter(60) is None
    again = limiter.enter(60)
    assert again is not None
    assert again.retry_after == 10


def test_calls_at_once() -> None:
    """Beyond `at_once` calls at a time a call is refused until another one ends."""
    limiter = Limiter(Fault("limits", at_once=1))
    assert limiter.enter(0) is None
    refused = limiter.enter(0)
    assert isinstance(refused, RateLimitError)
    assert refused.retry_after == 1
    limiter.leave()
    assert limiter.enter(0) is None
