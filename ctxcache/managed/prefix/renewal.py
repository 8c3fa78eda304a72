"""`Renewal`: the context that a prefix uses now: found in the store or created, by one task for all waiters.

Invariants:

- Single flight: at most one search or create is under way. Callers that need a context meanwhile wait for its result,
  or get a copy of its error; an error is not remembered. A cancelled caller leaves the work to the others; the last one
  cancels it.
- The first caller to find a context gone discards it; later ones use its successor.
- The store is asked only when no live context is known here, and told of uses now and then. A create holds a lease in
  the store, so that other processes wait for its context instead of creating their own.
"""

import asyncio
import logging
from secrets import token_hex
from typing import Final

from ...models import Context
from ..keeper import ContextKeeper, Replaced
from ..live import LiveContext
from .single_flight import SingleFlight
from .store_access import StoreAccess
from .timing import Timing

__all__ = ["Renewal"]

log: Final = logging.getLogger("ctxcache")

_TOUCH_SHARE: Final = 0.01  # of the ttl: how far the store's expiry may lag behind


class Renewal:
    """Keeps one context alive for any number of calls.

    Args:
        keeper: creates the contexts and announces them.
        store: the context's key in the store.
        timing: how to wait for a lease, and how long.
    """

    def __init__(self, keeper: ContextKeeper, store: StoreAccess, timing: Timing) -> None:
        self._keeper = keeper
        self._store = store
        self._timing = timing
        self._clock = keeper.clock
        self._live: LiveContext | None = None
        self._flight: SingleFlight[LiveContext] | None = None
        self._replaced: Replaced | None = None  # announced with its successor
        self._gone_id = ""
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the context

    @property
    def live(self) -> LiveContext | None:
        """The context, if there is one that has not expired."""
        live = self._live
        return None if live is None or live.expired(self._clock()) else live

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

    # --- telling the store of uses

    def store_lags(self, live: LiveContext) -> bool:
        """Whether the store's expiry lags so far behind that `touch` is due; True once for each lag."""
        lags = self._store.usable and live.expires_at - live.store_expires_at >= live.ttl * _TOUCH_SHARE
        if lags:
            live.store_expires_at = live.expires_at
        return lags

    async def touch(self, live: LiveContext) -> None:
        """Tell the store how long a context lives now."""
        await self._store.touch(live.context.id, live.remaining(self._clock()))

    def touch_later(self, live: LiveContext) -> None:
        """Do the same in a task of its own: the end of a stream cannot wait."""
        task = asyncio.get_running_loop().create_task(self.touch(live))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- single flight

    def _under_way(self) -> SingleFlight[LiveContext] | None:
        return None if self._flight is None or self._flight.over else self._flight

    def _start(self, *, fresh: bool) -> SingleFlight[LiveContext]:
        if self._live is not None and self._live.expired(self._clock()):
            self._replaced = Replaced(self._live.context.id, "expired")
            self._live = None
        self._flight = SingleFlight(self._fly(fresh), fresh=fresh)
        return self._flight

    async def _fly(self, fresh: bool) -> LiveContext:
        try:
            return await (self._create() if fresh else self._find_or_create())
        finally:
            # Here, not in a callback: a caller that comes a moment later must not get the error of this flight.
            if self._flight is not None and self._flight.mine:
                self._flight = None

    # --- where a context comes from

    async def _find_or_create(self) -> LiveContext:
        if not self._store.usable:
            return await self._create()
        if self._replaced is not None and self._replaced.reason == "gone":
            await self._store.forget(self._replaced.id)
        found = await self._find()
        if found is not None:
            return found
        holder = token_hex(8)
        try:
            found = await self._lease_or_find(holder)
            return found or await self._create_under_lease(holder)
        finally:
            await self._store.release(holder)

    async def _lease_or_find(self, holder: str) -> LiveContext | None:
        """Wait for the lease, or for the context that its holder creates."""
        timing = self._timing
        waited, pause = 0.0, timing.first_poll
        while not await self._store.lease(holder, timing.lease):
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

    async def _create_under_lease(self, holder: str) -> LiveContext:
        async def renew() -> None:
            while True:
                await self._timing.sleep(self._timing.lease_renewal)
                await self._store.lease(holder, self._timing.lease)

        renewing = asyncio.get_running_loop().create_task(renew())
        try:
            return await self._create()
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

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
        log.info("context %s: adopted from the store, %.0f s left", found.id, found.remaining)
        return live

    async def _create(self) -> LiveContext:
        live = await self._keeper.create()
        # Before anything is awaited: a context that exists, and is billed, is not lost if this task is cancelled now.
        self._live, replaced, self._replaced = live, self._replaced, None
        self._keeper.announce(live, replaced)
        await self._store.put(live.context.id, live.ttl, live.remaining(self._clock()))
        return live
