"""Slots: who finds none free waits in line, and none is lost or doubled."""

import asyncio

import pytest

from ctxcache.client.slots import Slots


@pytest.fixture
def waiting():
    """Make that many tasks wait for a slot, in turn; each notes its number when it has one."""

    async def wait(slots, count, served):
        async def one(number):
            await slots.wait()
            served.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await asyncio.sleep(0)
        return tasks

    return wait


async def test_in_the_order_they_came(waiting):
    """A slot goes to the first in line, and is free only where nobody waits."""
    slots, served = Slots(0), []
    tasks = await waiting(slots, 3, served)
    for expected in ([0], [0, 1], [0, 1, 2]):
        slots.release()
        assert slots.free == 0
        await asyncio.sleep(0)
        assert served == expected
    await asyncio.gather(*tasks)
    slots.release()
    assert slots.free == 1


async def test_at_the_front_of_the_line(waiting):
    """Whoever waits first is served next, and may leave the line like the others."""
    slots, served = Slots(0), []
    tasks = await waiting(slots, 2, served)
    urgent, cancelled = [asyncio.create_task(slots.wait(first=True)) for _ in range(2)]
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    slots.release()
    await urgent
    assert served == []
    for _ in tasks:
        slots.release()
    await asyncio.gather(*tasks)
    assert served == [0, 1]


async def test_cancelled_in_line(waiting):
    """Who is cancelled leaves the line; the slot goes to the next."""
    slots, served = Slots(0), []
    first, second = await waiting(slots, 2, served)
    first.cancel()
    await asyncio.sleep(0)
    slots.release()
    await second
    assert (served, slots.free) == ([1], 0)


@pytest.mark.parametrize("others", [0, 1])
async def test_cancelled_when_served(waiting, others):
    """Who is cancelled in the moment of getting a slot passes it on."""
    slots, served = Slots(0), []
    first, *rest = await waiting(slots, 1 + others, served)
    slots.release()
    first.cancel()
    await asyncio.wait([first])
    await asyncio.gather(*rest)
    assert (first.cancelled(), served, slots.free) == (True, [1] * others, 1 - others)


async def test_cancelled_and_served_at_once(waiting):
    """A slot is not handed to one who was cancelled and has not left the line yet."""
    slots, served = Slots(0), []
    first, second = await waiting(slots, 2, served)
    first.cancel()
    slots.release()
    await second
    assert (served, slots.free) == ([1], 0)
