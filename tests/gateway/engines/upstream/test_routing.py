"""Rendezvous hashing and the circuit breaker."""

import pytest

from ctxcache.gateway.engines.upstream.routing import Breaker, ranked

URLS = [f"http://model-{number}:8000/v1" for number in range(8)]
IDS = [f"ctx-20241211104333-{number:05}" for number in range(400)]


def test_contexts_are_spread_evenly() -> None:
    """Each of eight servers is first for about an eighth of the contexts, and the ranking is the same every time."""
    firsts = [ranked(context_id, URLS)[0] for context_id in IDS]
    assert all(30 <= firsts.count(place) <= 75 for place in range(8))
    assert firsts == [ranked(context_id, URLS)[0] for context_id in IDS]
    assert all(sorted(ranked(context_id, URLS)) == list(range(8)) for context_id in IDS)


def test_a_server_less_moves_its_contexts_only() -> None:
    """Without a server, its contexts go to their second choice, and every other stays where it is."""
    for context_id in IDS:
        order = [URLS[place] for place in ranked(context_id, URLS)]
        left = URLS[:3] + URLS[4:]
        assert [left[place] for place in ranked(context_id, left)] == [url for url in order if url != URLS[3]]


class Time:
    """Seconds that only a test moves."""

    now = 50.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_a_breaker_opens_at_the_third_failure_in_a_row() -> None:
    """Two failures and a success are forgotten; three open the breaker, which says so once."""
    breaker = Breaker(Time())
    assert [breaker.fail(), breaker.fail(), breaker.succeed()] == [False, False, False]
    assert [breaker.fail(), breaker.fail(), breaker.allows(), breaker.closed] == [False, False, True, True]
    assert [breaker.fail(), breaker.allows(), breaker.closed] == [True, False, False]
    assert [breaker.fail(), breaker.succeed(), breaker.allows()] == [False, True, True]


def test_one_call_may_try_after_each_pause() -> None:
    """The pauses are 1, 2, 4, … seconds, at most 30; after each a single call passes."""
    time = Time()
    breaker = Breaker(time, failures=1)
    pauses = []
    for _ in range(7):
        breaker.fail()
        pauses.append(breaker.seconds_left)
        time.now += breaker.seconds_left - 0.01
        assert not breaker.allows()
        time.now += 0.02
        assert [breaker.allows(), breaker.allows()] == [True, False]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert breaker.succeed()
    assert (breaker.closed, breaker.seconds_left) == (True, 0)
    breaker.fail()
    assert breaker.seconds_left == 1, "the pauses begin anew"


def test_a_call_that_never_came_back_is_no_end() -> None:
    """A trial whose outcome is never told keeps others out for a pause only."""
    time = Time()
    breaker = Breaker(time, failures=1)
    breaker.fail()
    time.now += 1
    assert breaker.allows()
    time.now += 1
    assert breaker.allows()
