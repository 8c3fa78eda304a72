"""`CircuitBreaker`: keeps a store that fails or stalls from delaying calls. One for each store object.

============  ==============================  =================================================================
state         an operation                    next
============  ==============================  =================================================================
closed        is carried out                  a failure opens the breaker
open          is not carried out              after a pause, the next operation is a trial
trial         only that operation             success closes the breaker; a failure opens it for a longer pause
============  ==============================  =================================================================

Pauses double from failure to failure, except that a stall, which costs its caller time, begins with the longest pause.
A stall also ends the wait of all operations under way: however many prefixes share a store, a stall costs a caller one
time limit, and further callers nothing.
"""

import asyncio
import weakref
from contextlib import suppress

from ..stores import Store
from .timing import Timing

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """The breaker of one store.

    Attributes:
        recoveries: how often the breaker was closed again. A store that comes back may have lost its entries.
        warned: whether the first failure has been reported.
    """

    def __init__(self, timing: Timing) -> None:
        self.recoveries = 0
        self.warned = False
        self._timing = timing
        self._pause = 0.0  # the present one; 0.0: closed
        self._next_trial = 0.0
        self._under_way: set[asyncio.Task[object]] = set()

    @classmethod
    def of(cls, store: Store, timing: Timing) -> "CircuitBreaker":
        """Return the breaker of a store object, shared by all that use the object."""
        known = _breakers.get(id(store))
        if known is not None and known[0]() is store:
            return known[1]
        breaker, key = cls(timing), id(store)
        with suppress(TypeError):  # no weak references: then the breaker is not shared
            _breakers[key] = weakref.ref(store, lambda _: _breakers.pop(key, None)), breaker
        return breaker

    @property
    def usable(self) -> bool:
        """Whether the next operation would be carried out."""
        return not self._pause or self._timing.monotonic() >= self._next_trial

    def admit(self) -> bool:
        """Whether to carry out an operation now. After a pause, the first one admitted is the trial."""
        if not self.usable:
            return False
        if self._pause:
            # Until the trial has ended, and a moment longer if its end is never reported.
            self._next_trial = self._timing.monotonic() + 2 * self._timing.store_limit
        return True

    def begin(self, task: "asyncio.Task[object]") -> None:
        """Note the task of an operation that was admitted."""
        self._under_way.add(task)

    def succeeded(self, task: "asyncio.Task[object]") -> None:
        """Close the breaker."""
        self._under_way.discard(task)
        if self._pause:
            self._pause = 0.0
            self.recoveries += 1

    def failed(self, task: "asyncio.Task[object]", *, stalled: bool) -> None:
        """Open the breaker; after a stall, also end the other operations under way."""
        timing = self._timing
        self._under_way.discard(task)
        longest = timing.longest_store_pause
        self._pause = longest if stalled else min(max(2 * self._pause, timing.first_store_pause), longest)
        self._next_trial = timing.monotonic() + self._pause
        if stalled:
            for other in tuple(self._under_way):
                with suppress(RuntimeError):  # its event loop is closed
                    other.get_loop().call_soon_threadsafe(other.cancel)

    def ended(self, task: "asyncio.Task[object]") -> None:
        """Forget an operation that was cancelled from outside, which says nothing about the store."""
        self._under_way.discard(task)


# By the id of the store, since stores need not be hashable.
_breakers: dict[int, tuple[weakref.ref[Store], CircuitBreaker]] = {}
