"""Which context is next: found, created and created again, once for all who wait.

Invariants:

- At most one creation is under way. Who needs a context meanwhile waits for that one, and gets its result or a copy of
  its error; an error is not remembered. One who is cancelled leaves it to the others; the last one cancels it.
- A context is given up by whoever first finds it gone; who finds so later takes the one that has come in its place.
- The store is asked only where there is no live context here, and told of uses now and then.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Final

import attrs

from ...models import Context
from ..expiry import Expiry
from ..keeper import ContextKeeper, Replaced
from .single_flight import SingleFlight
from .store_access import StoreAccess

__all__ = ["Live", "Renewal"]

log: Final = logging.getLogger("ctxcache")

_LEASE_SECONDS: Final = 30.0
_EXTEND_SECONDS: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Whoever creates extends its lease for as long as it takes. Waiting longer than this helps nobody.
_PATIENCE_SECONDS: Final = 120.0
_TOLD_SHARE: Final = 0.01


@attrs.define(eq=False)
class Live:
    """A context in use.

    Attributes:
        context: as created; of an adopted one, id, ttl, model and mode.
        expiry: its idle timer.
        adopted: whether it was found in the store, not created here.
        told: the end of its time as the store knows it.
    """

    context: Context
    expiry: Expiry
    adopted: bool
    told: float


class Renewal:
    """Keeps one context alive for any number of calls.

    Args:
        contexts: creates them, and tells of it.
        sharing: the store's side.
        sleep, random: pauses between looks at the store, and a random number in [0, 1) to spread them.
    """

    def __init__(
        self,
        contexts: ContextKeeper,
        sharing: StoreAccess,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._keeper = contexts
        self._sharing = sharing
        self._clock = contexts.clock
        self._sleep = sleep
        self._random = random
        self._live: Live | None = None
        self._flight: SingleFlight[Live] | None = None
        self._old: Replaced | None = None  # until another takes its place
        self._gone_id = ""
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the context

    @property
    def live(self) -> Live | None:
        """The context, if there is one and its time has not passed."""
        live = self._live
        return None if live is None or live.expiry.expired(self._clock()) else live

    async def current(self) -> Live:
        """Return a live context: the one there is, one from the store, or a new one.

        Raises:
            CtxCacheError: it could not be created; everyone who waited for it gets a copy of the error.
        """
        return self.live or await (self._under_way() or self._start(fresh=False)).join()

    async def created(self) -> Live:
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

    def used(self, live: Live, sent: float) -> bool:
        """Note a successful use, sent at this time; return whether the store should be told."""
        live.expiry.used(sent)
        due = self._sharing.usable and live.expiry.expires_at - live.told >= live.expiry.ttl * _TOLD_SHARE
        if due:
            live.told = live.expiry.expires_at
        return due

    async def tell(self, live: Live) -> None:
        """Tell the store how long a context lives now."""
        await self._sharing.touch(live.context.id, live.expiry.remaining(self._clock()))

    def gone(self, live: Live) -> None:
        """Give a context up because the service said it is gone; the first to say so of several counts."""
        if self._live is live:
            self._live = None
            self._old = Replaced(live.context.id, "gone")
            self._gone_id = live.context.id

    def tell_later(self, live: Live) -> None:
        """Tell the store beside the calls: the end of a stream cannot wait for it."""
        task = asyncio.get_running_loop().create_task(self.tell(live))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one creation for all

    def _under_way(self) -> SingleFlight[Live] | None:
        return None if self._flight is None or self._flight.over else self._flight

    def _start(self, *, fresh: bool) -> SingleFlight[Live]:
        if self._live is not None and self._live.expiry.expired(self._clock()):
            self._old = Replaced(self._live.context.id, "expired")
            self._live = None
        self._flight = SingleFlight(self._fly(fresh), fresh=fresh)
        return self._flight

    async def _fly(self, fresh: bool) -> Live:
        try:
            return await (self._created() if fresh else self._found_or_created())
        finally:
            # Here, not in a callback: whoever comes a moment later does not get the error of this one.
            if self._flight is not None and self._flight.mine:
                self._flight = None

    # --- where a context comes from

    async def _found_or_created(self) -> Live:
        if not self._sharing.usable:
            return await self._created()
        if self._old is not None and self._old.reason == "gone":
            await self._sharing.forget(self._old.id)
        found = await self._found()
        if found is not None:
            return found
        holder = token_hex(8)
        try:
            found = await self._leased_or_found(holder)
            return found or await self._created_under_lease(holder)
        finally:
            await self._sharing.release(holder)

    async def _leased_or_found(self, holder: str) -> Live | None:
        """Wait for the right to create; or for the context that another one, who has it, creates."""
        waited, pause = 0.0, _FIRST_PAUSE
        while not await self._sharing.lease(holder, _LEASE_SECONDS):
            if self._keeper.session.closed:
                break  # the create says so
            if waited >= _PATIENCE_SECONDS:
                log.warning("the right to create was not to be had from the store in %g s: without it", waited)
                break
            delay = pause * (0.5 + self._random() / 2)
            await self._sleep(delay)
            waited, pause = waited + delay, min(2 * pause, _LONGEST_PAUSE)
            if (found := await self._found()) is not None:
                return found
        return await self._found()  # it may have come just before the right

    async def _created_under_lease(self, holder: str) -> Live:
        async def extend() -> None:
            while True:
                await self._sleep(_EXTEND_SECONDS)
                await self._sharing.lease(holder, _LEASE_SECONDS)

        extending = asyncio.get_running_loop().create_task(extend())
        try:
            return await self._created()
        finally:
            extending.cancel()
            await asyncio.wait([extending])

    async def _found(self) -> Live | None:
        """Adopt the context that the store keeps, unless it is as good as gone."""
        now = self._clock()
        found = await self._sharing.get()
        if found is None or found.id == self._gone_id:
            return None
        expiry = Expiry(found.ttl, now, margin=self._keeper.margin, remaining=found.remaining)
        if expiry.expired(self._clock()):
            return None
        asked = self._keeper.asked
        context = Context(id=found.id, ttl=int(found.ttl), model=asked.model, mode=str(asked.mode))
        self._live, self._old = Live(context, expiry, adopted=True, told=expiry.expires_at), None
        log.info("context %s: adopted from the store, %.0f s left", found.id, found.remaining)
        return self._live

    async def _created(self) -> Live:
        context, expiry = await self._keeper.create()
        live = Live(context, expiry, adopted=False, told=expiry.expires_at)
        # Before anything is awaited: what exists, and is billed, is not lost if this is cancelled now.
        self._live, old, self._old = live, self._old, None
        self._keeper.tell_created(context, expiry.ttl, old)
        await self._sharing.put(context.id, expiry.ttl, expiry.remaining(self._clock()))
        return live
