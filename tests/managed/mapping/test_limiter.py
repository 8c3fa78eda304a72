"""`limiter`: as many calls at once as the service takes, and nobody rushes after a 429."""

from typing import Any

import pytest

from ctxcache import RateLimitError, Retry
from ctxcache.managed.mapping.limiter import Call, Limiter


def refusal(retry_after: float | None = None) -> RateLimitError:
    """A 429."""
    return RateLimitError("too fast", status=429, retry_after=retry_after)


def limiter(concurrency: int = 64, **policy: Any) -> Limiter:
    """A limiter under test."""
    return Limiter(concurrency, Retry(**{"first_delay": 1, "max_elapsed": 100, **policy}))


def start(limiter: Limiter, calls: int, now: float = 1000.0) -> list[Call]:
    """Start so many calls."""
    assert limiter.may_start(now)
    return [limiter.start(now) for _ in range(calls)]


def answer(limiter: Limiter, answers: int, now: float = 1000.0) -> int:
    """Answer so many calls while all slots are in use; return the limit then."""
    calls = start(limiter, limiter.limit - limiter.running, now)
    for _ in range(answers):
        limiter.succeeded(calls.pop(0), now)
        calls.append(limiter.start(now))
    for _ in calls:
        limiter.failed()
    return limiter.limit


def answer_early(limiter: Limiter, answers: int) -> None:
    """Answer so many calls, one at a time, which leaves the limit as it is."""
    for _ in range(answers):
        limiter.succeeded(limiter.start(1000), 1000)


def probe(limiter: Limiter, now: float = 1000.0) -> bool:
    """Use all slots, and refuse the last call; return whether its question goes again."""
    *others, last = start(limiter, limiter.limit, now)
    again = limiter.refused(last, refusal(), now, 0)
    for call in others:
        limiter.succeeded(call, now)
    return again


def test_begins_with_a_few() -> None:
    """It begins with 8 calls at once, or fewer if no more are allowed; then nobody may start."""
    assert [limiter(most).limit for most in (1, 7, 8, 64)] == [1, 7, 8, 8]
    full = limiter()
    start(full, 8)
    assert not full.may_start(1000)
    full.failed()
    assert full.may_start(1000)


def test_slow_start_is_quick() -> None:
    """Until the first 429 an answer adds a call, up to the concurrency asked for."""
    one = limiter(20)
    calls = start(one, 8)
    for _ in range(100):
        one.succeeded(calls.pop(0), 1000)
        calls += [one.start(1000) for _ in range(one.limit - one.running)]
    assert (one.limit, one.running) == (20, 20)


def test_starts_are_spread_while_the_limit_grows() -> None:
    """Until the first 429, and below the concurrency asked for, a round of answers is the time for two of starts."""
    one = limiter()
    calls = start(one, 8)
    one.succeeded(calls[0], 1001.6)
    starts, now = [], 1001.6
    while one.running < one.limit:
        now = max(now, one.resume_at)
        assert one.may_start(now)
        one.start(now)
        starts.append(now - 1001.6)
    assert (one.limit, starts) == (9, pytest.approx([0, 0]))
    assert one.resume_at == pytest.approx(1001.6 + 1.6 / 18)


def test_starts_are_spread_when_many_calls_are_added() -> None:
    """After the first 429, too: one more call starts at once, two more are spread over the round."""
    one = limiter()
    answer_early(one, 60)
    probe(one)
    assert answer(one, 20) == 8
    one.succeeded(one.start(1000), 1008)  # took 8 s
    assert one.resume_at == float("-inf")
    assert answer(one, 8) == 10
    one.start(1100)
    one.start(1100)
    assert one.resume_at > 1100


def test_starts_are_not_spread_at_the_limit() -> None:
    """At the concurrency asked for, and after the first 429, calls start as soon as there is room."""
    one = limiter(8)
    calls = start(one, 8)
    one.succeeded(calls[0], 1001)
    one.start(1001)
    assert one.resume_at == float("-inf")


def test_answers_that_come_together_count() -> None:
    """Answers count although slots are free when they are seen, as long as all were in use in their time."""
    one = limiter()
    for call in start(one, 8):
        one.succeeded(call, 1000)
    assert one.limit == 16


def test_idle_slots_prove_nothing() -> None:
    """Answers that arrive while slots are free add no call."""
    one = limiter()
    for _ in range(100):
        one.succeeded(one.start(1000), 1000)
    assert one.limit == 8


def test_a_probe_costs_one_call() -> None:
    """A call refused above the proven limit was one too many: nobody pauses, and the others keep their slots."""
    one = limiter()
    calls = start(one, 8)
    assert one.refused(calls[7], refusal(), 1000, 0)
    assert (one.limit, one.running) == (7, 7)
    one.succeeded(calls[0], 1000)
    assert one.may_start(1000)


def test_a_probe_leaves_the_limit_as_it_was() -> None:
    """A refused probe costs no slot, even if other answers are seen before the refusal."""
    one = limiter()
    answer_early(one, 60)
    probe(one)
    assert answer(one, 20) == 8
    calls = start(one, 8)
    one.succeeded(calls[0], 1000)
    one.refused(calls[7], refusal(), 1000, 0)
    assert (one.limit, one.running) == (7, 6)


def test_an_overshoot_ends_where_the_service_refused() -> None:
    """Refusals of calls that started before the first one was known lower the limit to what was taken."""
    one = limiter()
    calls = start(one, 8)
    for call in calls[3:]:
        one.refused(call, refusal(), 1000, 0)
    assert (one.limit, one.running) == (3, 3)
    assert one.resume_at == float("-inf")


def test_refused_again_halves() -> None:
    """A second 429 without an answer between to a call started since halves the calls at once."""
    one = limiter()
    calls = start(one, 8)
    one.refused(calls[7], refusal(), 1000, 0)
    one.succeeded(calls[0], 1000)  # started before the refusal
    one.refused(one.start(1000), refusal(), 1000, 0)
    assert (one.limit, one.running) == (3, 6)
    assert not one.may_start(1000)


def test_never_below_one() -> None:
    """However often it is refused, one call may be under way."""
    one = limiter(max_elapsed=1e9)
    for _ in range(20):
        assert one.refused(one.start(1000), refusal(), 1000, 0)
    assert one.limit == 1


def test_the_ceiling_is_probed_rarely() -> None:
    """At the limit found, 20 answers add one call; each further round of answers then adds 2, 4, 8, and so on."""
    one = limiter()
    answer_early(one, 60)
    probe(one)
    assert one.limit == 7
    assert [answer(one, answers) for answers in (19, 1, 8, 10, 14)] == [7, 8, 10, 14, 22]


@pytest.mark.parametrize(("limit", "enough"), [(3, 40), (5, 50)])
def test_probes_are_rarer_after_many_refusals(limit: int, enough: int) -> None:
    """While more than one call in 40 was refused, a probe takes ten rounds of answers, and 40 at least."""
    one = limiter()
    calls = start(one, 8)
    for call in calls[limit:]:
        one.refused(call, refusal(), 1000, 0)
    for _ in calls[:limit]:
        one.failed()
    assert [answer(one, answers) for answers in (enough - 1, 1)] == [limit, limit + 1]


def test_growth_stops_at_the_ceiling() -> None:
    """After a cut to the half the limit grows back to the last ceiling, and is not raised above at once."""
    one = limiter()
    answer_early(one, 60)
    probe(one)
    calls = start(one, 7)
    assert one.refused(calls[0], refusal(), 1000, 0)
    for _ in calls[1:]:
        one.failed()
    assert one.limit == 3
    assert [answer(one, answers) for answers in (2, 1, 4, 6, 19, 1)] == [3, 4, 6, 7, 7, 8]


def test_a_call_alone_came_too_early() -> None:
    """A call refused while no other is under way is paused, the longer the more often."""
    one = limiter(1, max_delay=8)
    pauses = []
    for _ in range(7):
        one.refused(one.start(1000), refusal(), 1000, 0)
        pauses.append(one.resume_at - 1000)
    assert pauses == [1 / 8, 3 / 8, 9 / 8, 27 / 8, 8, 8, 8]
    assert not one.may_start(1007.9)
    assert one.may_start(1008)


def test_retry_after_pauses_all() -> None:
    """The wait the service names is everybody's; a longer one, of a call of the same time too, prolongs it."""
    one = limiter()
    calls = start(one, 3)
    assert one.refused(calls[0], refusal(10), 1000, 0)
    assert one.resume_at == 1010
    assert one.refused(calls[1], refusal(30), 1001, 0)
    assert one.refused(calls[2], refusal(2), 1002, 0)
    assert [one.may_start(now) for now in (1030.9, 1031)] == [False, True]


def test_a_costly_probe_is_not_repeated_soon() -> None:
    """Where a probe costs a pause, the next one comes after twenty times the pause."""
    one = limiter()
    calls = start(one, 8)
    one.refused(calls[7], refusal(1), 1000, 0)
    for call in calls[:7]:
        one.succeeded(call, 1000)
    assert [answer(one, 60, now) for now in (1010, 1019)] == [7, 7]
    assert answer(one, 1, 1021) == 8


def test_calls_start_one_by_one_after_a_pause() -> None:
    """After a pause the starts are as far apart as refusals take, then closer: a used-up service refuses few."""
    one = limiter()
    calls = start(one, 8)
    one.refused(calls[7], refusal(10), 1001, 0)
    for call in calls[:7]:
        one.succeeded(call, 1001)
    starts, now = [], 1011.0
    while len(starts) < 4:
        if one.may_start(now):
            one.start(now)
            starts.append(now - 1011)
        now = max(now, one.resume_at)
    assert starts == pytest.approx([0, 2, 3, 3 + 2 / 3])


def test_too_long_a_wait_is_given_up() -> None:
    """A `Retry-After` above `max_retry_after` gives the question up, and no other is worth a call before."""
    one = limiter(max_retry_after=60)
    assert not one.refused(one.start(1000), refusal(61), 1000, 0)
    assert one.closed_until == 1061
    assert one.refused(one.start(1000), refusal(60), 1000, 0)
    assert one.closed_until == 1061


@pytest.mark.parametrize(("success", "again"), [(False, False), (True, True)])
def test_given_up_when_nothing_succeeds(success: bool, again: bool) -> None:
    """A question goes again for `max_elapsed` seconds of 429s; a success of any question begins them anew."""
    one = limiter(max_elapsed=100)
    assert one.refused(one.start(1000), refusal(), 1000, 0)
    if success:
        one.succeeded(one.start(1000), 1000)
    assert one.refused(one.start(1100.1), refusal(), 1100.1, 0) is again


def test_idle_time_is_not_trouble() -> None:
    """Where no question came for long, the first 429 afterwards is the first one."""
    one = limiter(max_elapsed=100)
    one.succeeded(one.start(1000), 1000)
    assert one.refused(one.start(1e6), refusal(), 1e6, 0)


def test_attempts_are_not_for_refusals() -> None:
    """`Retry(attempts=1)` turns other retries off; what did not run for want of room goes again."""
    one = limiter(attempts=1)
    assert one.refused(one.start(1000), refusal(), 1000, 0)


def test_a_pause_of_other_processes() -> None:
    """No call starts before the pause is over, then few at once, as after a pause of the map's own."""
    one = Limiter(64, Retry())
    one.hold(30, 1000.0)
    assert not one.may_start(1029.9)
    assert one.resume_at == 1030
    one.hold(20, 1005.0)
    assert one.resume_at == 1030
    assert one.may_start(1030.0)


def test_a_pause_without_end() -> None:
    """Whoever says wait, again and again: a call starts each `max_retry_after` seconds, and then the pause goes on."""
    one = Limiter(64, Retry(max_retry_after=60))
    started = []
    for second in range(1000, 1200):
        one.hold(3000, float(second))
        if one.may_start(float(second)):
            started.append(second)
            one.start(float(second))
    assert started == [1060, 1121, 1182]


def test_a_pause_known_already() -> None:
    """A pause of this map that the store gives back, some milliseconds late, is no further pause."""
    one = Limiter(64, Retry())
    one.start(1000.0)
    one.refused(one.start(1000.0), RateLimitError("too fast", status=429, retry_after=30), 1000.0, 0.0)
    one.hold(30.01, 1000.0)
    assert one.resume_at == 1030
    one.start(1030.0)
    resume_at = one.resume_at
    one.hold(0.01, 1030.0)
    assert one.resume_at == resume_at
