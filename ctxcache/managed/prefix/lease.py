"""`Lease`: the right to create a context, held in the store by one process at a time."""

import asyncio
from secrets import token_hex

from .store_access import StoreAccess
from .timing import Timing

__all__ = ["Lease"]


class Lease:
    """One holder's lease: short, and renewed while the create runs, so that a dead holder delays nobody for long.

    Args:
        store: the key in the store.
        timing: the length of the lease, and the interval of renewals.
    """

    def __init__(self, store: StoreAccess, timing: Timing) -> None:
        self._store = store
        self._timing = timing
        self._holder = token_hex(8)
        self._renewing: asyncio.Task[None] | None = None

    async def take(self) -> bool:
        """Take the lease; False while another process has it."""
        return await self._store.lease(self._holder, self._timing.lease)

    def keep(self) -> None:
        """Renew the lease in a task, until `give_back`."""
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await self._timing.sleep(self._timing.lease_renewal)
            await self.take()

    async def give_back(self) -> None:
        """Release the lease, even if `take` was cancelled half-way."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self._store.release(self._holder)
