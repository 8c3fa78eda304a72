"""The values of faults, and their checks."""

from typing import Any

import attrs
import pytest

from ctxcache import InvalidInputError
from ctxcache.gateway.faults.fault import KINDS, Fault, chance


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("explode", {}, "fault must be 'fail' or 'rate_limit' or "),
        ("fail", {}, "fault fail: status must be a whole number in [400, 599], got None"),
        ("fail", {"status": 200}, "fault fail: status must be a whole number in [400, 599], got 200"),
        ("fail", {"status": 503, "seconds": 1}, "fault fail: option must be code or nth or on or "),
        ("delay", {"seconds": -1}, "fault delay: seconds must be a number in [0, 86400], got -1"),
        ("reply", {"text": 5}, "fault reply: text must be a string, got 5"),
        ("busy", {"on": "create"}, "fault busy: on must be 'chat', got 'create'"),
        ("busy", {"on": "models"}, "fault busy: on must be 'create' or 'chat', got 'models'"),
        ("busy", {"nth": 0}, "fault busy: nth must be a whole number from 1 up, got 0"),
        ("busy", {"times": 0}, "fault busy: times must be a whole number from 1 up, got 0"),
        ("busy", {"probability": 2}, "fault busy: probability must be a number in [0, 1], got 2"),
        ("busy", {"seed": 2}, "fault busy: seed must be left out without a probability, got 2"),
        ("limits", {}, "fault limits: option must be rpm or at_once, got 'none'"),
        ("limits", {"rpm": 0}, "fault limits: rpm must be a whole number from 1 up, got 0"),
    ],
)
def test_a_wrong_fault_is_refused(kind: str, options: Any, message: str) -> None:
    """An error names the fault and the option, what is allowed, and what was given."""
    with pytest.raises(InvalidInputError) as refused:
        Fault(kind, **options)
    assert refused.value.message.startswith(message)


def test_the_value_has_a_default() -> None:
    """Where a kind has a usual value, none need be given."""
    values = {name: attrs.asdict(Fault(name)) for name, kind in KINDS.items() if kind.defaults}
    assert {name: {key for key in fault if fault[key] is not None} for name, fault in values.items()} == {
        "rate_limit": {"kind", "retry_after"},
        "disconnect": {"kind", "after_chunks"},
        "truncate": {"kind", "after_chunks"},
        "stall": {"kind", "seconds", "after_chunks"},
        "corrupt": {"kind", "after_chunks"},
        "lose_reply": {"kind", "after_chunks"},
    }
    assert Fault("stall", seconds=4).seconds == 4
    assert (Fault("stall").seconds, Fault("stall").after_chunks, Fault("lose_reply").after_chunks) == (30, 1, 0)


def test_whom_a_fault_concerns() -> None:
    """A fault is for both endpoints, for one, or by its kind for chats alone; constant without any choice of calls."""
    assert [Fault("evict").concerns(name) for name in ("create", "chat")] == [True, True]
    assert [Fault("evict", on="create").concerns(name) for name in ("create", "chat")] == [True, False]
    assert [Fault("busy").concerns(name) for name in ("create", "chat")] == [False, True]
    assert Fault("outage").is_constant
    assert not Fault("outage", nth=1).is_constant


def test_chance_is_even() -> None:
    """Numbers are the same for the same seed, in [0, 1), and spread evenly."""
    numbers = [chance(7, number) for number in range(10_000)]
    assert numbers == [chance(7, number) for number in range(10_000)]
    assert numbers != [chance(8, number) for number in range(10_000)]
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert all(900 < sum(low <= number < low + 0.1 for number in numbers) < 1100 for low in (0, 0.3, 0.9))
