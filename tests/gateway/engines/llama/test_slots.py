"""Slots: each call gets the slot that costs least."""

import asyncio

from ctxcache.gateway.engines.llama.slots import Slots


async def use(slots: Slots, context_id: str, *, unsaved: bool = False) -> int:
    """Make a call; return the number of its slot."""
    async with slots.take(context_id) as slot:
        slot.hold(context_id)
        slot.unsaved = unsaved
        return slot.index


async def test_the_slot_that_holds_the_context() -> None:
    """A context comes back to its slot, whatever else was used since."""
    slots = Slots(3)
    first = await use(slots, "a", unsaved=True)
    assert await use(slots, "b") != first
    assert await use(slots, "c") != first
    assert await use(slots, "a") == first


async def test_an_empty_slot_before_one_in_use() -> None:
    """New contexts fill all slots before any loses tokens; then the slot used longest ago is taken."""
    slots = Slots(3)
    filled = [await use(slots, name) for name in "abc"]
    assert sorted(filled) == [0, 1, 2]
    assert await use(slots, "b") == filled[1]
    assert await use(slots, "d") == filled[0]
    assert await use(slots, "e") == filled[2]


async def test_saved_tokens_go_before_unsaved() -> None:
    """Of two slots the one whose tokens are in a file is taken, though it was used later."""
    slots = Slots(2)
    unsaved = await use(slots, "session", unsaved=True)
    saved = await use(slots, "prefix")
    assert await use(slots, "new") == saved
    async with slots.take("another") as one, slots.take("more") as other:
        assert {one.index, other.index} == {saved, unsaved}
        assert (other.context_id, other.unsaved) == ("session", True)


async def test_calls_wait_in_order() -> None:
    """More calls than slots wait, first come, first served; one that is cancelled takes no turn."""
    slots, order, leave = Slots(1), list[str](), asyncio.Event()

    async def call(name: str) -> None:
        async with slots.take(name):
            order.append(name)
            await leave.wait()

    async with asyncio.TaskGroup() as calls:
        tasks = []
        for name in "abcd":
            tasks.append(calls.create_task(call(name)))
            await asyncio.sleep(0)
        assert order == ["a"]
        tasks[1].cancel()
        leave.set()
    assert order == ["a", "c", "d"]


async def test_a_failed_call_gives_the_slot_back() -> None:
    """A call that raises leaves its slot to the next."""
    slots = Slots(1)
    for _ in range(3):
        try:
            async with slots.take("a"):
                raise ValueError
        except ValueError:
            pass
    assert await use(slots, "a") == 0


async def test_forgotten_contexts_leave_empty_slots() -> None:
    """A context that ended has no claim: its slot is taken first, and has nothing to save."""
    slots = Slots(2)
    ended = await use(slots, "ended", unsaved=True)
    await use(slots, "prefix")
    slots.forget("ended")
    async with slots.take("new") as slot:
        assert (slot.index, slot.context_id, slot.unsaved) == (ended, None, False)
