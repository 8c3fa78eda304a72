"""`pace`: as fast as the service grants, slower after each refusal, and not all at once after a pause."""

import math

import pytest

from ctxcache import Retry
from ctxcache.managed.mapping.pace import Pace


def pace(**policy: float) -> Pace:
    """A pace under test."""
    return Pace(Retry(**{"first_delay": 1, "max_delay": 8, **policy}))  # type: ignore[arg-type]


def paced(spacing: float) -> Pace:
    """A pace that found a spacing: two refusals, and twenty calls taken between."""
    one = pace()
    one.start(1000)
    one.refused(20, 1000 + 20 * spacing, 0)
    one.answered()
    one.refused(40, 1000 + 40 * spacing, 0)
    one.answered()
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
    """The spacing is the time between two refusals over the calls taken."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.answered()
    one.refused(149, 1015, 0)
    assert one.spacing == pytest.approx(5 / 49)


def test_a_refusal_doubles_the_spacing_at_most() -> None:
    """One estimate is trusted for a doubling of the mean time between calls, no more."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.answered()
    one.refused(105, 1070, 0)
    assert one.spacing == pytest.approx(2 * 10 / 100)  # so far there was a call each 0.1 s
    one.answered()
    one.refused(110, 1071, 0)
    assert one.spacing == pytest.approx(2 * 70 / 105)


def test_a_refusal_alone_says_nothing() -> None:
    """One refusal, or the first of several in a row, sets no spacing."""
    one = pace()
    one.start(1000)
    one.refused(10, 1001, 0)
    one.answered()
    assert one.spacing == 0


def test_refusals_in_a_row_bound_the_pace() -> None:
    """Once refusals in a row have shown that the allowance is used up, no pace is faster than all calls until then."""
    one = pace()
    one.start(1000)
    one.refused(10, 1001, 0)
    one.refused(10, 1003, 0)
    assert one.spacing == 0
    one.answered()
    assert one.spacing == pytest.approx(3 / 10)


def test_refusals_in_a_row_are_one() -> None:
    """The time between two refusals counts from the first in a row: until then the allowance was used up."""
    one = pace()
    one.start(1000)
    one.refused(100, 1010, 0)
    one.refused(100, 1014, 0)
    one.answered()
    one.refused(150, 1020, 0)
    assert one.spacing == pytest.approx(10 / 50)


def test_old_refusals_are_forgotten() -> None:
    """A refusal more than 80 calls ago says nothing about today's pace, if there is a later one."""
    one = pace()
    one.start(1000)
    for taken, now in ((100, 1010), (120, 1011), (200, 1025)):
        one.refused(taken, now, 0)
        one.answered()
    assert one.spacing == pytest.approx(14 / 80)


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
    """Each 20 answers without a refusal quicken the pace, by 2, 6, 18, 18%."""
    one = paced(0.1)
    assert answer(one, 18) == pytest.approx(0.1)
    assert answer(one, 1) == pytest.approx(0.1 / 1.02)
    assert answer(one, 60) == pytest.approx(0.1 / 1.02 / 1.06 / 1.18 / 1.54)


def test_a_rough_estimate_is_tried_sooner() -> None:
    """An estimate of 10 calls or fewer lasts for 10 answers."""
    one = pace()
    one.start(1000)
    one.refused(10, 1001, 0)
    one.answered()
    one.refused(15, 1002, 0)
    rough = one.spacing
    assert rough > 0
    assert answer(one, 9) == pytest.approx(rough)
    assert answer(one, 1) == pytest.approx(rough / 1.02)


def test_a_pace_that_grew_too_fast_returns() -> None:
    """A refusal after the pace grew restores what was taken, and doubles the time until the next, up to 160 answers."""
    one = paced(0.1)
    now, taken = 1004.0, 40
    for answers in (19, 40, 80, 160):
        assert answer(one, answers - 1) == pytest.approx(0.1)
        assert answer(one, 1) == pytest.approx(0.1 / 1.02)
        now, taken = now + 0.1 * answers, taken + answers
        one.refused(taken, now, 0)
        assert one.spacing == pytest.approx(0.1)
    assert answer(one, 159) == pytest.approx(0.1)


def test_a_refusal_takes_back_the_last_step() -> None:
    """After growth a refusal slows down by the last step at most, however few calls were taken."""
    one = paced(0.1)
    before, after = answer(one, 59), answer(one, 20)
    assert after == pytest.approx(before / 1.54)
    one.refused(50, 1100, 0)
    assert one.spacing == pytest.approx(before)


def test_pauses_triple() -> None:
    """Refusals in a row triple the pause, from an eighth of `first_delay` up to `max_delay`; the first is a spacing."""
    one = paced(0.001)
    pauses = [one.refused(41, 1000.041, 0) for _ in range(6)]
    assert pauses == pytest.approx([0.001, 3 / 8, 9 / 8, 27 / 8, 8, 8])
    assert one.refused(41, 1000.041, 1) == 4
    one.answered()
    assert one.refused(42, 1000.042, 1) == pytest.approx(0.001, rel=0.05)


def test_the_first_pauses_without_a_call_taken() -> None:
    """Where no call was ever taken, pauses begin with an eighth of `first_delay`."""
    one = pace(first_delay=0.25)
    one.start(1000)
    assert [one.refused(0, 1000, 0) for _ in range(3)] == [0.25 / 8, 0.75 / 8, 2.25 / 8]


def test_no_first_delay() -> None:
    """Where `first_delay` is 0, pauses begin with the mean time between calls so far: nobody knocks without end."""
    one = pace(first_delay=0)
    one.start(1000)
    assert [one.refused(10, 1001, 0) for _ in range(3)] == pytest.approx([0.1, 0.3, 0.9])


def test_the_shortest_time_between_starts() -> None:
    """A start may ask for a shortest time to the next one; timers that ring up to 2 ms late are made up for."""
    one = pace()
    one.start(1000, least=0.5)
    assert one.resume_at == pytest.approx(1000.0)  # nothing started for long
    one.start(1000.25, least=0.5)
    assert one.resume_at == pytest.approx(1000.5)
    one.start(1001, least=0.001)
    assert one.resume_at == pytest.approx(1000.999)


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


def test_few_calls_make_no_pace() -> None:
    """Refusals in a row, while others use up the limit and 9 calls were taken here, say nothing of the pace."""
    one = pace()
    one.start(1000)
    for second in range(1000, 1300, 10):
        one.refused(9, second, 0)
    one.answered()
    assert one.spacing == 0


def test_a_slow_pace_is_tried_sooner() -> None:
    """A period ends after 16 seconds and 3 answers, however many refusals of a faster pace came before."""
    one = paced(4.0)
    now, taken = 1160.0, 40
    for _ in range(4):
        answer(one, 10)
        now, taken = now + 40, taken + 10
        one.refused(taken, now, 0)
    spacing = one.spacing
    needed = math.ceil(16 / spacing)
    assert answer(one, needed - 1) == spacing
    assert answer(one, 1) == pytest.approx(spacing / 1.02)


def test_a_pace_that_was_not_refused_since_is_tried_soonest() -> None:
    """A period ends after 4 seconds and 3 answers while no faster pace was refused."""
    one = paced(1.0)
    assert answer(one, 2) == 1.0  # one answer has come before
    assert answer(one, 1) == pytest.approx(1 / 1.02)
    assert answer(one, 12) < 0.8
