"""`StoreAccess`: one key in a store, behind a time limit and a circuit breaker.

A store may fail without failing a call. Every operation has a time limit. A failure opens the breaker: for a while the
store is not asked, and operations answer as if there were none (nothing is found, everybody may create). Then the next
operation is a trial; success closes the breaker. The first failure is logged and reported to the hooks, later ones are
not.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from ...client.cancellation import CancelScope
from ...client.hooks import WarningEvent
from ...errors import SessionError
from ..stores import Store, StoredContext
from .timing import Timing

__all__ = ["StoreAccess"]

T = TypeVar("T")
log: Final = logging.getLogger("ctxcache")


class StoreAccess:
    """One key in a store. The methods are those of `Store`, and never raise.

    Args:
        store: the store; None: there is none, and nothing is shared.
        key: a fingerprint that tells accounts, models and messages apart.
        notify: tells the hooks of the first failure.
        clock: seconds; times the pause after a failure.
        timing: the time limit and the pause.
    """

    def __init__(
        self,
        store: Store | None,
        key: str,
        notify: Callable[[str, Callable[[], Any]], None],
        clock: Callable[[], float],
        timing: Timing,
    ) -> None:
        self._store = store
        self._key = key
        self._notify = notify
        self._clock = clock
        self._limit = timing.store_limit
        self._pause = timing.store_pause
        self._warned = False
        self._open_until: float | None = None  # the breaker; None: closed

    async def get(self) -> StoredContext | None:
        """Return the context that the store keeps, if any."""

        async def get(store: Store) -> StoredContext | None:
            found = await store.get(self._key)
            if found is None:
                return None
            # Stores may be somebody else's code: a context that is none counts as a failure of the store.
            ttl, remaining = float(found.ttl), float(found.remaining)
            if not isinstance(found.id, str) or not found.id or not 0 < ttl < math.inf or not math.isfinite(remaining):
                raise ValueError("no context")
            return StoredContext(found.id, ttl, remaining)

        return await self._guarded("get", get, None)

    async def put(self, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context in the store."""
        await self._guarded("put", lambda store: store.put(self._key, context_id, ttl, remaining), None)

    async def touch(self, context_id: str, remaining: float) -> None:
        """Postpone the expiry in the store."""

        async def touch(store: Store) -> None:
            with suppress(SessionError):  # the store was closed right after a stream: a lost note is no failure
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
        """Whether there is a store, and the breaker is closed or due for a trial."""
        return self._store is not None and (self._open_until is None or self._clock() >= self._open_until)

    async def _guarded(self, name: str, operation: Callable[[Store], Awaitable[T]], without: T) -> T:
        store, scope = self._store, CancelScope()
        if store is None or not self.usable:
            return without
        try:
            async with asyncio.timeout(self._limit):
                answer = await operation(store)
        except asyncio.CancelledError as error:
            if scope.cancelled_elsewhere():
                raise  # this task was cancelled; otherwise something inside the store was
            self._failed(name, error)
        except Exception as error:
            self._failed(name, error)
        else:
            self._open_until = None
            return answer
        return without

    def _failed(self, name: str, error: BaseException) -> None:
        """Open the breaker."""
        self._open_until = self._clock() + self._pause
        # The error's text may hold the store's address, with a password in it.
        failure = f"the store failed ({type(error).__name__} in {name})"
        if self._warned:
            log.debug("%s again", failure)
            return
        self._warned = True
        message = f"{failure}: continuing without it, retrying every {self._pause:g} s (logged once)"
        log.warning("%s", message)
        self._notify("on_warning", lambda: WarningEvent(kind="store", message=message, error=error))
