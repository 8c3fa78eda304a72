"""Stored messages are hidden from the garbage collector."""

import gc
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest

from ctxcache.gateway.collection import Freezer


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    """Other tests see their objects again."""
    yield
    gc.unfreeze()


class Cycle:
    """An object that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_a_few_messages_stay_in_sight() -> None:
    """Nothing is hidden before there are many messages, however they come."""
    freezer = Freezer(few=10)
    before = gc.get_freeze_count()
    for _ in range(5):
        freezer(2)
    assert gc.get_freeze_count() == before
    freezer(1)
    assert gc.get_freeze_count() > before


def test_young_garbage_is_not_hidden() -> None:
    """Cycles that are garbage already are freed, not kept for ever."""
    freezer = Freezer(few=0)
    garbage = ref(Cycle())
    freezer(1)
    assert garbage() is None


async def test_large_contexts_are_hidden_and_still_freed(start: Any) -> None:
    """The messages of a large context are out of the collector's sight, and freed with the context."""
    api = await start()
    before = gc.get_freeze_count()
    created = await api.create(messages=[{"role": "user", "content": "x"}] * 20_000)
    hidden = gc.get_freeze_count() - before
    assert hidden > 20_000
    api.gateway.expire(created["id"])
    assert gc.get_freeze_count() - before < hidden - 19_000
