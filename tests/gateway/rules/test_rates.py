"""How much one client may call."""

import random

import pytest

from ctxcache.errors import RateLimitError
from ctxcache.gateway.rules.clients import NO_LIMITS, KeyLimits
from ctxcache.gateway.rules.rates import Minute, Rates


def test_a_minute_slides() -> None:
    """What was used counts for a minute, by the second."""
    minute = Minute()
    minute.add(2, 100.5)
    minute.add(1, 100.9)
    minute.add(4, 130.0)
    assert minute.wait(8, 130.0) == 0
    assert minute.wait(7, 130.0) == 31
    assert minute.wait(5, 130.5) == 30.5
    assert minute.wait(4, 130.0) == 61
    assert minute.wait(1, 161.0) == 30
    assert (minute.wait(4, 161.0), minute.wait(5, 161.0), minute.wait(1, 191.0)) == (30, 0, 0)


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    """What was used counts for a minute by the clock as it is now."""
    minute = Minute()
    minute.add(3, 5000)
    assert minute.wait(3, 100) == 61
    assert minute.wait(3, 160) == 1
    assert minute.wait(3, 161) == 0


def test_no_minute_has_more_than_the_limit_and_each_wait_is_true() -> None:
    """At random times: of any 60 seconds none has more requests than the limit, and after the wait there is room."""
    rng = random.Random(1)
    limits, rates, now, accepted = KeyLimits(requests_per_minute=5), Rates(), 1000.0, []
    for _ in range(3000):
        now += rng.choice([0, 0.01, 1, 7, 30]) * rng.random()
        try:
            rates.begin(limits, now)
        except RateLimitError as error:
            assert error.retry_after is not None
            assert 0 < error.retry_after <= 61
            if rng.random() < 0.5:
                now += error.retry_after
                rates.begin(limits, now)
                accepted.append(now)
        else:
            accepted.append(now)
    assert all(later - first >= 60 for first, later in zip(accepted, accepted[5:], strict=False))
    assert len(accepted) > 500


def test_each_limit_has_its_code() -> None:
    """A refusal is a 429 with the service's code and the time to wait, and counts nothing."""
    limits, rates = KeyLimits(calls=2, requests_per_minute=3, tokens_per_minute=10), Rates()
    told = []

    def begin(now: float) -> None:
        try:
            rates.begin(limits, now)
        except RateLimitError as error:
            told.append((error.status, error.code, error.retry_after))

    for _ in range(3):
        begin(100)
    rates.end()
    begin(110)
    rates.end()
    begin(120)
    rates.tokens.add(10, 130)
    begin(140)
    assert told == [
        (429, "InflightBatchsizeExceeded", 1),
        (429, "APIAccountRpmRateLimitExceeded", 41),
        (429, "ModelAccountTpmRateLimitExceeded", 51),
    ]
    begin(191)
    assert (len(told), rates.calls) == (3, 2)


def test_nothing_is_refused_without_limits() -> None:
    """A client without limits calls as often as it likes."""
    rates = Rates()
    for _ in range(1000):
        rates.begin(NO_LIMITS, 0)
    rates.tokens.add(10**9, 0)
    rates.begin(NO_LIMITS, 0)
    with pytest.raises(RateLimitError):
        rates.begin(KeyLimits(calls=1), 0)
