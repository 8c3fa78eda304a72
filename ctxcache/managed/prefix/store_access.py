"""What one managed context knows of its store: the key it has there, and that a store may fail without failing a call.

Every call of the store has a time limit. The first failure is told, once for each managed object; after each, the store
is left alone for a while and everything goes on as if there were none: nothing is found, and the right to create is
everybody's.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from ...client.hooks import Notifier, WarningEvent
from ...errors import SessionError
from ..stores import Store, StoredContext

__all__ = ["StoreAccess"]

T = TypeVar("T")
log: Final = logging.getLogger("ctxcache")

_LIMIT_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 30.0


class StoreAccess:
    """One key in a store. Its methods are those of `Store`, and never raise.

    Args:
        store: the store; None: there is none, and nothing is shared.
        key: a fingerprint that tells accounts, models and messages apart.
        hooks: told of the first failure.
        clock: seconds; by it the pause after a failure is counted.
        limit: the longest that one call of the store may take, in seconds.
    """

    def __init__(
        self,
        store: Store | None,
        key: str,
        hooks: Notifier,
        clock: Callable[[], float],
        *,
        limit: float = _LIMIT_SECONDS,
    ) -> None:
        self._store = store
        self._key = key
        self._hooks = hooks
        self._clock = clock
        self._limit = limit
        self._told = False
        self._back_at: float | None = None  # after a failure: when the store is tried again

    async def get(self) -> StoredContext | None:
        """Return the context that the store keeps, if any."""

        async def get(store: Store) -> StoredContext | None:
            found = await store.get(self._key)
            if found is None:
                return None
            # A store is somebody else's code: what it found is looked at here, where a failure is told as the store's.
            ttl, remaining = float(found.ttl), float(found.remaining)
            if not isinstance(found.id, str) or not found.id or not 0 < ttl < math.inf or not math.isfinite(remaining):
                raise ValueError("no context")
            return StoredContext(found.id, ttl, remaining)

        return await self._guarded("get", get, None)

    async def put(self, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context in the store."""
        await self._guarded("put", lambda store: store.put(self._key, context_id, ttl, remaining), None)

    async def touch(self, context_id: str, remaining: float) -> None:
        """Slide the expiry in the store."""

        async def touch(store: Store) -> None:
            with suppress(SessionError):  # closed right after a stream: a note is lost, which is no failure
                await store.touch(self._key, context_id, remaining)

        await self._guarded("touch", touch, None)

    async def forget(self, context_id: str) -> None:
        """Drop a context from the store."""
        await self._guarded("forget", lambda store: store.forget(self._key, context_id), None)

    async def lease(self, holder: str, seconds: float) -> bool:
        """Take or extend the right to create; True as well where the store fails."""
        return bool(await self._guarded("lease", lambda store: store.lease(self._key, holder, seconds), True))

    async def release(self, holder: str) -> None:
        """Give the right to create back."""
        await self._guarded("release", lambda store: store.release(self._key, holder), None)

    @property
    def usable(self) -> bool:
        """Whether there is a store, and it has not failed just now."""
        return self._store is not None and (self._back_at is None or self._clock() >= self._back_at)

    async def _guarded(self, name: str, call: Callable[[Store], Awaitable[T]], without: T) -> T:
        store, task = self._store, asyncio.current_task()
        if store is None or task is None or not self.usable:
            return without
        cancelling = task.cancelling()
        try:
            async with asyncio.timeout(self._limit):
                answer = await call(store)
        except asyncio.CancelledError as error:
            if task.cancelling() > cancelling:
                raise  # we were cancelled; else something inside the store was
            self._failed(name, error)
        except Exception as error:
            self._failed(name, error)
        else:
            self._back_at = None
            return answer
        return without

    def _failed(self, name: str, error: BaseException) -> None:
        self._back_at = self._clock() + _PAUSE_SECONDS
        # Not the error's text: it may hold the store's address, with a password in it.
        what = f"the store failed ({type(error).__name__} in {name})"
        if self._told:
            log.debug("%s again", what)
            return
        self._told = True
        message = f"{what}: calls go on without it, it is tried again every {_PAUSE_SECONDS:g} s (said once)"
        log.warning("%s", message)
        self._hooks.fire("on_warning", lambda: WarningEvent(kind="store", message=message, error=error))
