"""The limit on waiting for heads: each in its time, one timer for those who wait equally long, none left over."""

import asyncio

import pytest

from ctxcache import APITimeoutError
from ctxcache.client.transport.head_timeouts import HeadTimeouts


class Loop:
    """An event loop's clock and timers, turned by hand."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def time(self):
        """Return the time."""
        return self.now

    def call_at(self, when, callback, *args):
        """Set a timer."""
        timer = asyncio.TimerHandle(when, callback, args, self)
        self.timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, timer):
        self.timers.remove(timer)

    def get_debug(self):
        """Return False."""
        return False

    def pass_to(self, now):
        """Let time pass, and run what is due."""
        while due := [timer for timer in self.timers if timer.when() <= now]:
            timer = min(due, key=asyncio.TimerHandle.when)
            self.now = max(self.now, timer.when())
            self.timers.remove(timer)
            timer._callback(*timer._args)
        self.now = now


class Connection:
    """What hears of a head that does not come."""

    failure = None

    def set_exception(self, failure):
        """Note the error."""
        self.failure = failure


@pytest.fixture
def loop():
    """A loop turned by hand."""
    return Loop()


def waiting(heads, loop, limit, moments):
    """Connections on which a head is waited for from these moments on."""
    connections = []
    for moment in moments:
        loop.pass_to(moment)
        connections.append(Connection())
        heads.begin(connections[-1], connections[-1], limit)
    return connections


def test_each_in_its_time(loop):
    """Each wait ends when its own limit has passed, with the error that says so."""
    heads = HeadTimeouts(loop)
    connections = waiting(heads, loop, 10, [0, 1, 2])
    for moment, failed in ((9.9, 0), (10, 1), (11.5, 2), (12, 3)):
        loop.pass_to(moment)
        assert [connection.failure is not None for connection in connections] == [n < failed for n in range(3)]
    failure = connections[0].failure
    assert isinstance(failure, APITimeoutError)
    assert (failure.limit, failure.sent) == ("head", True)


def test_one_timer(loop):
    """Waits that are equally long share a timer; those of another limit have their own."""
    heads = HeadTimeouts(loop)
    waiting(heads, loop, 10, range(5))
    short = waiting(heads, loop, 1, [5])
    assert len(loop.timers) == 2
    loop.pass_to(6)
    assert short[0].failure is not None
    assert len(loop.timers) == 1


def test_ended(loop):
    """A head that came is not waited for; when none is, there is no timer, until the next."""
    heads = HeadTimeouts(loop)
    first, second = waiting(heads, loop, 10, [0, 1])
    heads.end(first, 10)
    loop.pass_to(10.5)
    assert (first.failure, second.failure, len(loop.timers)) == (None, None, 1)
    heads.end(second, 10)
    loop.pass_to(11)
    assert (second.failure, loop.timers) == (None, [])
    (third,) = waiting(heads, loop, 10, [12])
    loop.pass_to(22)
    assert third.failure is not None


def test_close(loop):
    """Closing leaves no timer, and who is still waiting may end."""
    heads = HeadTimeouts(loop)
    first, second = (*waiting(heads, loop, 10, [0]), *waiting(heads, loop, 20, [1]))
    heads.close()
    assert loop.timers == []
    heads.end(first, 10)
    loop.pass_to(100)
    assert (first.failure, second.failure) == (None, None)


def test_one_connection_after_another(loop):
    """A connection may wait for the next head before the first wait is known to have ended."""
    heads, connection = HeadTimeouts(loop), Connection()
    heads.begin("first", connection, 10)
    loop.pass_to(5)
    heads.begin("second", connection, 10)
    heads.end("first", 10)
    loop.pass_to(14)
    assert connection.failure is None
    loop.pass_to(15)
    assert connection.failure is not None
