"""`pace`: as fast as the service grants, slower after each refusal, and not all at once after a pause."""

import pytest

from ctxcache import Retry
from ctxcache.managed.mapping.pace import Pace


def pace(**policy: float) -> Pace:
    """A pace under test."""
    return Pace(Retry(**{"first_delay": 1, "max_delay": 8, **policy}))  # type: ignore[arg-type]


def paced(spacing: float) -> Pace:
    """A pace that found a spacing: two refusals, and ten calls taken between."""
    one = pace()
    one.start(1000)
    one.refused(10, 1000 + 10 * spacing, 0)
    one.refused(20, 1000 + 10 * spacing + 11 * spacing, 0)
    assert one.spacing == pytest.approx(spacing)
    return one


def answer(one: Pace, answers: int) -> float:
    """Answer so many calls; return the spacing then."""
    for _ in range(answers):
        one.answered()
    return one.spacing


def test_no_pace_before_a_refusal() -> None:
    """Calls start as soon as they like until a refusal came too early."""
    one = pace()
    for _ in range(100):
        one.start(1000)
    assert (one.spacing, one.resume_at) == (0, float("-inf"))
    assert answer(one, 100) == 0


def test_the_spacing_is_what_was_taken() -> None:
    """The spacing is the time between two refusals over the calls taken, one more for few calls."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.refused(149, 1015, 0)
    assert one.spacing == pytest.approx(5 / 49)


def test_a_refusal_doubles_the_spacing_at_most() -> None:
    """One estimate is trusted for a doubling, no more."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.refused(105, 1070, 0)
    assert one.spacing == pytest.approx(2 * 70 / 105)


def test_few_calls_say_nothing() -> None:
    """Fewer than 4 calls between two refusals change no spacing."""
    one = pace()
    one.start(1000)
    one.refused(10, 1001, 0)
    one.refused(13, 1100, 0)
    assert one.spacing == 0


def test_old_refusals_are_forgotten() -> None:
    """A refusal more than 80 calls ago says nothing about today's pace."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.refused(200, 1100, 0)
    assert one.spacing == 0


def test_starts_keep_the_spacing() -> None:
    """Starts are a spacing apart; a timer that rings late is made up for, by up to one start."""
    one = paced(0.1)
    now = 2000.0
    one.start(now)
    assert one.resume_at == pytest.approx(2000.0)  # nothing started for long
    one.start(2000.0)
    assert one.resume_at == pytest.approx(2000.1)
    one.start(2000.13)
    assert one.resume_at == pytest.approx(2000.2)


def test_the_pace_grows_faster_and_faster() -> None:
    """Each 30 answers without a refusal quicken the pace, by 2, 6, 18%."""
    one = paced(0.1)
    assert answer(one, 29) == pytest.approx(0.1)
    assert answer(one, 1) == pytest.approx(0.1 / 1.02)
    assert answer(one, 60) == pytest.approx(0.1 / 1.02 / 1.06 / 1.18)


def test_a_pace_that_grew_too_fast_returns() -> None:
    """A refusal after the pace grew takes the growth back, and doubles the time until the next, up to 160 answers."""
    one = paced(0.1)
    for answers, taken in ((30, 50), (60, 110), (120, 230), (160, 390)):
        assert answer(one, answers - 1) == pytest.approx(0.1)
        assert answer(one, 1) == pytest.approx(0.1 / 1.02)
        one.refused(taken, 1100, 0)
        assert one.spacing == pytest.approx(0.1)
    assert answer(one, 159) == pytest.approx(0.1)


def test_a_large_growth_returns_half_way() -> None:
    """After a large step the truth lies between: the pace returns to the mean of both."""
    one = paced(0.1)
    before = answer(one, 60)
    after = answer(one, 30)
    one.refused(200, 1100, 0)
    assert one.spacing == pytest.approx((before * after) ** 0.5)


def test_pauses_double() -> None:
    """Refusals in a row double the pause, from the fourth on at least as `first_delay` says, up to `max_delay`."""
    one = paced(0.001)
    one.answered()
    pauses = [one.refused(21, 1000.022, 0) for _ in range(8)]
    assert pauses == pytest.approx([0.001, 0.002, 0.004, 1, 2, 4, 8, 8])
    assert one.refused(21, 1000.022, 1) == 4
    one.answered()
    assert one.refused(22, 1000.023, 1) == pytest.approx(0.001)


def test_the_first_pauses_without_a_call_taken() -> None:
    """Where no call was ever taken, pauses begin with `first_delay`."""
    one = pace(first_delay=0.25)
    one.start(1000)
    assert [one.refused(0, 1000, 0) for _ in range(3)] == [0.25, 0.5, 1]


def test_a_slow_start_after_a_pause() -> None:
    """After a pause the starts are as far apart as the refusal took, twice; then closer."""
    one = pace()
    one.start(1000)
    one.pause(5, 1001, took=0.5)
    assert one.resume_at == 1006
    starts = []
    for _ in range(4):
        now = one.resume_at
        starts.append(now)
        one.start(now)
    assert starts == pytest.approx([1006, 1007, 1007.5, 1007 + 5 / 6])
