"""`outage`: where no connection can be made, the questions wait, and one of them tries."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    APITimeoutError,
    AsyncSession,
    ChatCompletion,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    Prefix,
    RateLimitError,
    Retry,
    SessionError,
    StreamInterruptedError,
    system,
)
from ctxcache.client.hooks import Hooks, RetryEvent
from ctxcache.gateway import Gateway
from ctxcache.managed.mapping import Map
from ctxcache.managed.mapping.outage import Outage, State, proves_connection
from ctxcache.retry import unreachable

from .asking import Time, collect, completion, settle

DOWN = APIConnectionError("refused")


@pytest.mark.parametrize(
    ("error", "is_unreachable", "is_answer"),
    [
        (APIConnectionError("refused"), True, False),
        (APITimeoutError.of("connect", 10), True, False),
        (APITimeoutError.of("pool", 10), False, False),
        (APITimeoutError.of("total", 10), False, False),
        (APIConnectionError("lost", sent=True), False, True),
        (APIConnectionError("bad certificate", hopeless=True), False, False),
        (RateLimitError("slow", status=429), False, True),
        (InternalServerError("down", status=500), False, True),
        (StreamInterruptedError("cut"), False, True),
        (InvalidInputError.of("n", 0, "positive"), False, False),
        (SessionError("closed"), False, False),
    ],
)
def test_kinds_of_errors(error: CtxCacheError, is_unreachable: bool, is_answer: bool) -> None:
    """An outage is an error before anything was sent that another attempt may help; any answer ends one."""
    assert (unreachable(error), proves_connection(error)) == (is_unreachable, is_answer)


def test_one_probe_at_a_time() -> None:
    """During an outage one call starts, after a pause that doubles with each failure."""
    one = Outage(Retry(first_delay=1, max_delay=4))
    assert not one.start()
    assert one.failed(DOWN, 1000, 0, probe=False)
    for pause in (1, 2, 4, 4):
        assert not one.may_start(one.resume_at - 0.1)
        now = one.resume_at
        assert one.may_start(now)
        assert one.start()
        assert not one.may_start(now)
        before = now
        assert one.failed(DOWN, now, 0, probe=True)
        assert one.resume_at - before == min(2 * pause, 4)


def test_calls_from_before_change_nothing() -> None:
    """A call that began before the outage neither ends nor prolongs it, and its question waits too."""
    one = Outage(Retry(first_delay=1))
    one.failed(DOWN, 1000, 0, probe=False)
    assert one.failed(DOWN, 1000.5, 0, probe=False)
    assert not one.ended(probe=False, connected=True)
    assert (one.state, one.resume_at) == (State.AWAY, 1001)


def test_an_answer_ends_it() -> None:
    """Once a probe is answered, every call may start; the end of a call that proves nothing frees the probe."""
    one = Outage(Retry(first_delay=1))
    one.failed(DOWN, 1000, 0, probe=False)
    assert one.start()
    assert not one.ended(probe=True, connected=False)
    assert one.may_start(1001)
    assert one.start()
    assert one.ended(probe=True, connected=True)
    assert one.state is State.UP
    assert one.may_start(1001)
    assert not one.start()


def test_given_up_after_max_elapsed() -> None:
    """The last probe comes when `max_elapsed` is over; then every call fails at once, until one is answered."""
    one = Outage(Retry(first_delay=4, max_delay=4, max_elapsed=10))
    one.failed(DOWN, 1000, 0, probe=False)
    probes = []
    while one.state is State.AWAY:
        probes.append(one.resume_at)
        one.start()
        again = one.failed(DOWN, one.resume_at, 0, probe=True)
    assert probes == [1004, 1008, 1010]
    assert not again
    assert one.may_start(1010)
    assert one.start()
    assert one.may_start(1010)
    assert not one.failed(DOWN, 1010, 0, probe=True)
    assert one.ended(probe=True, connected=True)
    assert one.state is State.UP


def test_no_time_to_wait() -> None:
    """`max_elapsed` of 0 gives up at once."""
    one = Outage(Retry(max_elapsed=0))
    assert not one.failed(DOWN, 1000, 0, probe=False)
    assert one.state is State.GIVEN_UP


class Service:
    """A service that cannot be reached for some seconds, from a moment on, and answers in one second."""

    def __init__(self, time: Time, begin: float, seconds: float) -> None:
        self.time, self.begin, self.end = time, begin, begin + seconds
        self.asked = self.refused = self.most = self.running = 0

    async def __call__(self, question: Any, /, *, retry: Retry) -> ChatCompletion:
        """Answer, or refuse the connection."""
        self.asked += 1
        if self.begin <= self.time.now < self.end:
            self.refused += 1
            raise APIConnectionError("refused")
        self.running += 1
        self.most = max(self.most, self.running)
        await settle()
        self.time.now += 0.01
        self.running -= 1
        return completion(f"re: {question}")


@pytest.mark.parametrize("seconds", [3, 10, 60])
async def test_all_are_answered(
    time: Time, timed: Callable[..., Map[Any]], log_lines: Callable[[str], list[str]], seconds: float
) -> None:
    """After an outage the rest is answered; the log has a line for its begin and one for its end."""
    service = Service(time, 1001, seconds)
    told: list[float] = []
    answered = await collect(timed(service, range(2000), on_retry=lambda error, attempts, delay: told.append(delay)))
    assert all(answer.ok for answer in answered)
    assert len(answered) == 2000
    assert service.refused < 64 + 3 + seconds / 4
    assert len(told) == service.refused
    begin, end = log_lines("WARNING")
    assert begin == "map: no connection, all questions wait for up to 120 s: refused"
    assert end.startswith("map: connected again after ")


async def test_longer_than_the_policy(
    time: Time, timed: Callable[..., Map[Any]], log_lines: Callable[[str], list[str]]
) -> None:
    """After `max_elapsed` seconds the questions fail, each with its own error, and succeed again once it is over."""
    service = Service(time, 1001, 35)
    retry = Retry(max_elapsed=30)

    async def questions() -> AsyncIterator[int]:
        for number in range(500):
            if time.now > 1030:
                time.now += 0.05
            yield number

    answered = await collect(timed(service, questions(), retry=retry))
    failed = [answer for answer in answered if not answer.ok]
    assert {type(answer.error) for answer in failed} == {APIConnectionError}
    assert 0 < len(failed) < 300
    assert len({id(answer.error) for answer in failed}) == len(failed)
    assert [line.partition(":")[2].split(" for ")[0] for line in log_lines("WARNING")] == [
        " no connection, all questions wait",
        " no connection",
        " connected again after " + log_lines("WARNING")[-1].split()[-2] + " s",
    ]


async def test_hopeless_errors_fail_at_once(time: Time, timed: Callable[..., Map[Any]]) -> None:
    """A bad certificate is no outage."""

    async def ask(question: int, /, *, retry: Retry) -> ChatCompletion:
        raise APIConnectionError("bad certificate", hopeless=True)

    answered = await collect(timed(ask, range(100)))
    assert [answer.ok for answer in answered] == [False] * 100
    assert time.slept == []


async def test_a_server_that_starts_late(quiet_loop: None, log_lines: Callable[[str], list[str]]) -> None:
    """The create of the context waits as the questions do: a line at the begin, one at the end, all are answered."""
    async with Gateway(faults="outage") as gateway:
        lost: list[RetryEvent] = []

        def begin(event: RetryEvent) -> None:
            lost.append(event)
            if len(lost) == 12:
                gateway.heal()

        quick, hooks = Retry(first_delay=0.01, max_delay=0.05), Hooks(on_retry=begin)
        async with AsyncSession(gateway.api_key, gateway.base_url, retry=quick, hooks=hooks) as session:
            prefix = Prefix(session, model="Doubao-1.5-pro-32k", messages=[system("Be brief")])
            answered = await collect(prefix.map(f"Question {number}?" for number in range(100)))
        assert [answer.ok for answer in answered] == [True] * 100
        first, last = log_lines("WARNING")
        assert first.startswith("map: no connection, all questions wait for up to 120 s: cannot connect")
        assert last.startswith("map: connected again after ")


async def test_a_server_that_restarts(quiet_loop: None) -> None:
    """Questions over a server that goes, and comes back on the same port, are all answered."""
    async with Gateway() as gateway:
        lost: list[RetryEvent] = []

        def restart(event: RetryEvent) -> None:
            if isinstance(event.error, APIConnectionError) and not event.error.sent:
                lost.append(event)
                if len(lost) == 3:
                    gateway.heal()

        quick, hooks = Retry(first_delay=0.01, max_delay=0.05), Hooks(on_retry=restart)
        async with AsyncSession(gateway.api_key, gateway.base_url, retry=quick, hooks=hooks) as session:
            prefix = Prefix(session, model="Doubao-1.5-pro-32k", messages=[system("Be brief")])
            count = 0
            async for answer in prefix.map(f"Question {number}?" for number in range(300)):
                assert answer.ok
                count += 1
                if count == 20:
                    gateway.outage()
        assert count == 300
        assert len(lost) >= 3
