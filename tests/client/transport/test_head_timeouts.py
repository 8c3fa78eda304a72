"""The limit on the wait for a head: each in time, one timer for equal limits, none left over."""

import asyncio

import aiohttp
import pytest

from ctxcache import APITimeoutError, Limits, OutcomeUnknownError, Timeouts
from ctxcache.client.environment import Environment
from ctxcache.client.transport.head_timeouts import HeadTimeouts

from ...hostile import CHAT, CREATE, SSE, STALL, STORY, answer, pieces, trickle
from ..calling import OK, Clock, failure


class Timer:
    """A timer of `Loop`."""

    def __init__(self, loop, when, callback, args):
        self.loop, self.when, self.run = loop, when, lambda: callback(*args)

    def cancel(self):
        """Take the timer back."""
        self.loop.timers.remove(self)


class Loop:
    """An event loop's clock and timers, turned by hand."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def clock(self):
        """Return the time."""
        return self.now

    def call_later(self, delay, callback, *args):
        """Set a timer."""
        self.timers.append(Timer(self, self.now + delay, callback, args))
        return self.timers[-1]

    def pass_to(self, now):
        """Let time pass, and run what is due."""
        while due := [timer for timer in self.timers if timer.when <= now]:
            timer = min(due, key=lambda timer: timer.when)
            self.now = max(self.now, timer.when)
            self.timers.remove(timer)
            timer.run()
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
    heads = HeadTimeouts(loop, loop.clock, look=1000)
    connections = waiting(heads, loop, 10, [0, 1, 2])
    for moment, failed in ((9.9, 0), (10, 1), (11.5, 2), (12, 3)):
        loop.pass_to(moment)
        assert [connection.failure is not None for connection in connections] == [n < failed for n in range(3)]
    failure = connections[0].failure
    assert isinstance(failure, APITimeoutError)
    assert (failure.limit, failure.sent) == ("head", True)


def test_one_timer(loop):
    """Waits that are equally long share a timer; those of another limit have their own."""
    heads = HeadTimeouts(loop, loop.clock, look=1000)
    waiting(heads, loop, 10, range(5))
    short = waiting(heads, loop, 1, [5])
    assert len(loop.timers) == 2
    loop.pass_to(6)
    assert short[0].failure is not None
    assert len(loop.timers) == 1


def test_ended(loop):
    """A head that came is not waited for; when none is, there is no timer, until the next."""
    heads = HeadTimeouts(loop, loop.clock, look=1000)
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


def test_looks_often_enough(loop):
    """No timer runs longer than a look: a clock may be ahead of the event loop's."""
    heads = HeadTimeouts(loop, loop.clock, look=1)
    (first,) = waiting(heads, loop, 10, [0])
    loop.now = 20
    loop.pass_to(20)
    assert first.failure is not None


def test_close(loop):
    """Closing leaves no timer, and who is still waiting may end."""
    heads = HeadTimeouts(loop, loop.clock, look=1000)
    first, second = (*waiting(heads, loop, 10, [0]), *waiting(heads, loop, 20, [1]))
    heads.close()
    assert loop.timers == []
    heads.end(first, 10)
    loop.pass_to(100)
    assert (first.failure, second.failure) == (None, None)


def test_one_connection_after_another(loop):
    """A connection may wait for the next head before the first wait is known to have ended."""
    heads, connection = HeadTimeouts(loop, loop.clock, look=1000), Connection()
    heads.begin("first", connection, 10)
    loop.pass_to(5)
    heads.begin("second", connection, 10)
    heads.end("first", 10)
    loop.pass_to(14)
    assert connection.failure is None
    loop.pass_to(15)
    assert connection.failure is not None


# --- against a server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [[STALL], [trickle(answer())], [trickle(b"HTTP/1.1 103 Early\r\n\r\n" * 99, 0.001)]])
async def test_head_limit(hostile, session_for, script):
    """An answer whose head has not come within `Timeouts.head`, however it trickles, has an unknown outcome."""
    hostile.plays(script)
    session = session_for(timeouts=Timeouts(head=0.05))
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, OutcomeUnknownError)
    assert isinstance(error.cause, APITimeoutError)
    assert (error.cause.limit, error.cause.sent, len(hostile.posts)) == ("head", True, 1)
    await hostile.until(lambda: not hostile.open)


async def test_head_limit_of_a_create(hostile, session_for):
    """A create whose answer does not come is repeated, and at last an `APITimeoutError`: it is harmless."""
    hostile.plays([STALL], [STALL], [STALL])
    error = await failure(session_for(timeouts=Timeouts(head=0.03)).context.create(**CREATE))
    assert type(error) is APITimeoutError
    assert (error.limit, error.attempts, len(hostile.posts)) == ("head", 3, 3)


async def test_head_limit_counts_from_the_request(hostile, session_for):
    """`Timeouts.head` begins when the request leaves, not while it waits for a connection."""
    clock = Clock()
    environment = Environment(clock=clock, look=0.001)
    session = session_for(limits=Limits(connections=1), timeouts=Timeouts(head=10), environment=environment)
    hostile.plays([SSE, *pieces(STORY[0]), STALL], OK)
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    waiting = asyncio.ensure_future(session.chat.create(**CHAT))
    await clock.pass_time(hostile, 12)
    await stream.aclose()
    assert (await waiting).text == "Hi"


async def test_head_limit_behind_slow_traces(hostile, session_for):
    """A call whose connection came free before a trace of the caller's own session had ended keeps its head limit."""

    async def slowly(*_):
        await asyncio.sleep(0.03)

    traces = aiohttp.TraceConfig()
    traces.on_request_end.append(slowly)
    hostile.plays([answer()], [STALL])
    async with aiohttp.ClientSession(trace_configs=[traces], connector=aiohttp.TCPConnector(limit=1)) as http:
        session = session_for(http=http, timeouts=Timeouts(head=0.2, total=5))
        first, second = (asyncio.create_task(session.chat.create(**CHAT)) for _ in range(2))
        await first
        error = await failure(second)
    assert (error.cause.limit, len(hostile.posts), len(hostile.connections)) == ("head", 2, 1)
