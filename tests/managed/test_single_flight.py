"""`single_flight`: one task at work for all who wait."""

import asyncio
import gc
import threading

import pytest

from ctxcache import AuthenticationError, SessionError
from ctxcache.managed.single_flight import SingleFlight

pytestmark = pytest.mark.usefixtures("quiet_loop")


class Work:
    """Work that ends when a test says so."""

    def __init__(self, error=None):
        self.error = error
        self.gate = asyncio.Event()
        self.task = None
        self.flight = None
        self.begun = 0

    async def __call__(self):
        """Work."""
        self.begun += 1
        self.task = asyncio.current_task()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return "done"


@pytest.fixture
def work():
    """Work that succeeds."""
    return Work()


async def test_all_who_join_get_one_result(work):
    """However many they are."""
    flight = SingleFlight(work())
    waiting = [asyncio.ensure_future(flight.join()) for _ in range(10)]
    await asyncio.sleep(0)
    assert not flight.over
    work.gate.set()
    assert await asyncio.gather(*waiting) == ["done"] * 10
    assert (work.begun, flight.over) == (1, True)


async def test_each_gets_an_error_of_its_own():
    """A copy, which a caller may add to; what is not of the family is raised as it is."""
    for kind, distinct in ((AuthenticationError, 3), (ZeroDivisionError, 1)):
        work = Work(kind("no"))
        flight = SingleFlight(work())
        work.gate.set()
        errors = await asyncio.gather(*(flight.join() for _ in range(3)), return_exceptions=True)
        assert {type(error) for error in errors} == {kind}
        assert len({id(error) for error in errors}) == distinct


async def test_one_who_is_cancelled_leaves_the_work_to_the_others(work):
    """The one who began it, or another."""
    flight = SingleFlight(work())
    first, second = [asyncio.ensure_future(flight.join()) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    work.gate.set()
    assert await second == "done"
    assert first.cancelled()


async def test_the_last_to_leave_cancels_the_work(work):
    """And joining is too late from that moment on."""
    flight = SingleFlight(work())
    waiting = asyncio.ensure_future(flight.join())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert flight.over
    await asyncio.wait([work.task])
    assert work.task.cancelled()


async def test_work_that_fails_as_its_last_waiter_leaves():
    """Nobody is left to look at the error, and the event loop does not complain."""
    work = Work(AuthenticationError("no"))
    flight = SingleFlight(work())
    waiting = asyncio.ensure_future(flight.join())
    await asyncio.sleep(0)
    work.gate.set()
    await asyncio.wait([work.task])
    waiting.cancel()
    await asyncio.wait([waiting])
    del work, flight, waiting
    gc.collect()


async def test_work_that_somebody_else_cancels(work):
    """Its waiters, who were not cancelled, get an error of the family."""
    flight = SingleFlight(work())
    waiting = asyncio.ensure_future(flight.join())
    await asyncio.sleep(0)
    work.task.cancel()
    with pytest.raises(SessionError, match="cancelled from outside"):
        await waiting


async def test_work_that_is_done_is_over(work):
    """So nobody joins it, even where it was done before it could be noted, as with an eager task factory."""
    work.gate.set()
    flight = SingleFlight(work())
    assert await flight.join() == "done"
    assert flight.over


async def test_it_knows_its_own_task(work):
    """So that the work itself can say that it is over."""
    mine = []

    async def own():
        await asyncio.sleep(0)
        mine.append(flight.mine)

    flight = SingleFlight(own(), fresh=True)
    await flight.join()
    assert (mine, flight.mine, flight.fresh) == ([True], False, True)


async def test_in_another_event_loop_it_says_so(work):
    """Waiting for what another loop does would wait for ever."""
    flight = SingleFlight(work())
    waiting = asyncio.ensure_future(flight.join())
    caught = []

    def elsewhere():
        try:
            asyncio.run(flight.join())
        except SessionError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    work.gate.set()
    await waiting
    assert "event loop" in str(caught[0])
