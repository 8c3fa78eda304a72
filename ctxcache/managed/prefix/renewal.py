"""`Renewal`: the context that a prefix uses now: found in the store or created, by one task for all waiters.

Invariants:

- Single flight: at most one search or create is under way. Callers that need a context meanwhile wait for its result,
  or get a copy of its error; an error is not remembered. A cancelled caller leaves the work to the others. The last one
  cancels a search, but not a create that was sent, which is billed and serves the next caller.
- The first caller to find a context gone discards it; later ones use its successor.
- The store is asked only when no live context is known here. A create holds a lease in the store, so that other
  processes wait for its context instead of creating their own.
- No caller waits for the store once there is a context: tasks beside the calls put the context there and note uses. A
  context that could not be put there, because the store was down, gets there with a later use.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from ...log import log
from ...models import Context
from ..keeper import ContextKeeper, Replaced
from ..live import LiveContext
from ..single_flight import SingleFlight
from .lease import Lease
from .repeat_budget import RepeatBudget
from .store_access import StoreAccess
from .timing import Timing

__all__ = ["Renewal"]

_TOUCH_SHARE: Final = 0.01  # of the ttl: how far the store's expiry may lag behind


class Renewal:
    """Keeps one context alive for any number of calls.

    Args:
        keeper: creates the contexts and announces them.
        store: the context's key in the store.
        timing: how to wait for a lease, and how long.

    Attributes:
        budget: limits how often calls are repeated beyond the first time.
    """

    def __init__(self, keeper: ContextKeeper, store: StoreAccess, timing: Timing) -> None:
        self._keeper = keeper
        self._store = store
        self._shares = store.exists
        self._timing = timing
        self._clock = keeper.clock
        self._live: LiveContext | None = None
        self._flight: SingleFlight[LiveContext] | None = None
        self._replaced: Replaced | None = None  # announced with its successor
        self._gone_id = ""
        self._shared: tuple[LiveContext, int] | None = None  # the context in the store, and the recoveries by then
        self._publishing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.budget = RepeatBudget()

    # --- the context

    @property
    def live(self) -> LiveContext | None:
        """The context, if there is one that has not expired."""
        live = self._live
        return None if live is None or live.expired(self._clock()) else live

    @property
    def latest(self) -> LiveContext | None:
        """The context that was found or created last, expired or not; None once discarded."""
        return self._live

    @property
    def under_way(self) -> bool:
        """Whether a context is being found or created."""
        return self._under_way() is not None

    def superseded(self, live: LiveContext) -> bool:
        """Whether a newer context than this one is known, or under way."""
        return (self.live or live) is not live or self.under_way

    async def current(self) -> LiveContext:
        """Return a live context: the known one, one from the store, or a new one.

        Raises:
            CtxCacheError: the create failed; every waiter gets a copy of the error.
        """
        return self.live or await (self._under_way() or self._start(fresh=False)).join()

    async def created(self) -> LiveContext:
        """Return a live context that was created here, not found in the store.

        Raises:
            CtxCacheError: as `current`.
        """
        live, flight = self.live, self._under_way()
        if live is None and flight is not None:
            live = await flight.join()
            flight = self._under_way()
        if live is not None and not live.adopted:
            return live
        if flight is None or not flight.fresh:
            flight = self._start(fresh=True)
        return await flight.join()

    def discard(self, live: LiveContext) -> None:
        """Stop using a context that the service reported gone; only the first report counts."""
        if self._live is live:
            self._live = None
            self._replaced = Replaced(live.context.id, "gone")
            self._gone_id = live.context.id

    # --- the store, beside the calls

    def note_use(self, live: LiveContext) -> bool:
        """Keep the store up to date after a use; return whether a task was started for that."""
        if not self._shares or live is not self._live or not self._store.usable:
            return False
        if self._shared != (live, self._store.recoveries):
            if self._publishing:
                return False
            self._spawn(self._publish(live, find_first=True))
            return True
        if live.expires_at - live.store_expires_at < live.ttl * _TOUCH_SHARE:
            return False
        before, live.store_expires_at = live.store_expires_at, live.expires_at
        self._spawn(self._touched(live, before, self._store.touch(live.context.id, live.remaining(self._clock()))))
        return True

    async def settled(self) -> None:
        """Wait until the store knows of the context, or has failed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _touched(self, live: LiveContext, before: float, touching: Awaitable[bool]) -> None:
        if not await touching:
            live.store_expires_at = before

    async def _publish(self, live: LiveContext, *, find_first: bool) -> None:
        """Put a context into the store; not if `find_first`, and another process has put one there."""
        self._publishing = True
        try:
            if find_first:
                found = await self._store.get()
                if found is not None and found.id not in (live.context.id, self._gone_id):
                    self._note_shared(live)
                    return
            if await self._store.put(live.context.id, live.ttl, live.remaining(self._clock())):
                self._note_shared(live)
        finally:
            self._publishing = False

    def _note_shared(self, live: LiveContext) -> None:
        self._shared = live, self._store.recoveries
        live.store_expires_at = live.expires_at

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- single flight

    def _under_way(self) -> SingleFlight[LiveContext] | None:
        return None if self._flight is None or self._flight.over else self._flight

    def _start(self, *, fresh: bool) -> SingleFlight[LiveContext]:
        if self._live is not None and self._live.expired(self._clock()):
            self._replaced = Replaced(self._live.context.id, "expired")
            self._live = None
        self._flight = SingleFlight(self._fly(fresh), fresh=fresh, keep=lambda: self._keeper.create_sent)
        return self._flight

    async def _fly(self, fresh: bool) -> LiveContext:
        try:
            return await (self._create(Lease(self._store, self._timing)) if fresh else self._find_or_create())
        finally:
            # Here, not in a callback: a caller that comes a moment later must not get the error of this flight.
            if self._flight is not None and self._flight.mine:
                self._flight = None

    # --- where a context comes from

    async def _find_or_create(self) -> LiveContext:
        lease = Lease(self._store, self._timing)
        if not self._store.usable:
            return await self._create(lease)
        if self._replaced is not None and self._replaced.reason == "gone":
            await self._store.forget(self._replaced.id)
        found = await self._find()
        if found is not None:
            return found
        try:
            found = await self._lease_or_find(lease)
        except BaseException:
            self._spawn(lease.give_back())
            raise
        if found is None:
            return await self._create(lease)
        self._spawn(lease.give_back())
        return found

    async def _lease_or_find(self, lease: Lease) -> LiveContext | None:
        """Wait for the lease, or for the context that its holder creates."""
        timing = self._timing
        waited, pause = 0.0, timing.first_poll
        while not await lease.take():
            if self._keeper.session.closed:
                break  # the create raises the error for that
            if waited >= timing.patience:
                log.warning("no lease from the store within %g s; creating a context without one", waited)
                break
            delay = pause * (0.5 + timing.random() / 2)
            await timing.sleep(delay)
            waited, pause = waited + delay, min(2 * pause, timing.longest_poll)
            if (found := await self._find()) is not None:
                return found
        return await self._find()  # its context may have come just before the lease

    async def _find(self) -> LiveContext | None:
        """Adopt the context that the store keeps, unless it is as good as gone."""
        now = self._clock()
        found = await self._store.get()
        if found is None or found.id == self._gone_id:
            return None
        template = self._keeper.template
        context = Context(id=found.id, ttl=int(found.ttl), model=template.model, mode=str(template.mode))
        live = self._keeper.watch(context, found.ttl, now, remaining=found.remaining, adopted=True)
        if live.expired(self._clock()):
            return None
        self._live, self._replaced = live, None
        self._note_shared(live)
        log.info("context %s: adopted from the store, %.0f s left", found.id, found.remaining)
        return live

    async def _create(self, lease: Lease) -> LiveContext:
        """Create a context and put it into the store; the lease is kept for that long, and given back."""
        live: LiveContext | None = None
        lease.keep()
        try:
            live = await self._keeper.create()
            # Before anything is awaited: a context that exists, and is billed, must not be lost by a cancellation.
            self._live, replaced, self._replaced = live, self._replaced, None
            self._keeper.announce(live, replaced)
            return live
        finally:
            self._spawn(self._conclude(live, lease))

    async def _conclude(self, live: LiveContext | None, lease: Lease) -> None:
        try:
            if live is not None:
                await self._publish(live, find_first=False)
        finally:
            await lease.give_back()
