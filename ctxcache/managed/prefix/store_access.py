"""`StoreAccess`: one key in a store, behind a time limit and the store's circuit breaker.

A store may fail without failing a call. While the breaker is open, operations answer as if there were no store: nothing
is found, everybody may create. The first failure of a store is logged and reported to the hooks, later ones are not.

Each operation runs in a task of its own, so that a cancelled caller leaves no operation half done.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ...client.hooks import WarningEvent
from ...errors import SessionError
from ...log import log
from ..stores import Store, StoredContext
from .breaker import CircuitBreaker
from .timing import Timing

__all__ = ["StoreAccess"]

T = TypeVar("T")


class StoreAccess:
    """One key in a store. The methods are those of `Store`, and never raise.

    Args:
        store: the store; None: there is none, and nothing is shared.
        key: a fingerprint that tells accounts, models and messages apart.
        notify: tells the hooks of the first failure.
        timing: the time limit of an operation, and the pauses after failures.

    Attributes:
        exists: whether there is a store at all.
    """

    def __init__(
        self, store: Store | None, key: str, notify: Callable[[str, Callable[[], Any]], None], timing: Timing
    ) -> None:
        self._store = store
        self.exists = store is not None
        self._key = key
        self._notify = notify
        self._limit = timing.store_limit
        self._breaker = CircuitBreaker(timing) if store is None else CircuitBreaker.of(store, timing)
        self._retry_seconds = timing.longest_store_pause
        self._leasing: asyncio.Task[bool] | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a store, and its breaker is closed or due for a trial."""
        return self._store is not None and self._breaker.usable

    @property
    def recoveries(self) -> int:
        """How often the store came back after failures; entries may have been lost meanwhile."""
        return self._breaker.recoveries

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
            return StoredContext(found.id, ttl, min(remaining, ttl))

        return await self._run("get", get, None)

    async def put(self, context_id: str, ttl: float, remaining: float) -> bool:
        """Keep a context in the store; return whether the store has it now."""

        async def put(store: Store) -> bool:
            with suppress(SessionError):  # the store was closed: its owner is done with it
                await store.put(self._key, context_id, ttl, remaining)
            return True

        return await self._run("put", put, False)

    def touch(self, context_id: str, remaining: float) -> Awaitable[bool]:
        """Postpone the expiry in the store, beginning now; await whether that succeeded."""

        async def touch(store: Store) -> bool:
            with suppress(SessionError):
                await store.touch(self._key, context_id, remaining)
            return True

        return self._result(self._begin("touch", touch), False)

    async def forget(self, context_id: str) -> None:
        """Drop a context from the store."""
        await self._run("forget", lambda store: store.forget(self._key, context_id), None)

    async def lease(self, holder: str, seconds: float) -> bool:
        """Take or extend the right to create; True as well where the store fails."""
        self._leasing = self._begin("lease", lambda store: store.lease(self._key, holder, seconds))
        return bool(await self._result(self._leasing, True))

    async def release(self, holder: str) -> None:
        """Give the right to create back, after taking it if that is still under way."""
        if self._leasing is not None and not self._leasing.done():
            await asyncio.wait([self._leasing])

        async def release(store: Store) -> None:
            with suppress(SessionError):
                await store.release(self._key, holder)

        await self._run("release", release, None)

    def pause(self, seconds: float) -> None:
        """Note in the store, beginning now, that nobody is to call for so many seconds."""

        async def pause(store: Store) -> None:
            with suppress(SessionError):
                await store.pause(self._key, seconds)

        self._begin("pause", pause)

    async def paused(self) -> float:
        """Return the seconds until the pause in the store ends; 0 where there is none, or the store fails."""

        async def paused(store: Store) -> float:
            with suppress(SessionError):
                seconds = float(await store.paused(self._key))
                if not math.isfinite(seconds):
                    raise ValueError("no duration")
                return seconds
            return 0.0

        return await self._run("paused", paused, 0.0)

    async def _run(self, name: str, operation: Callable[[Store], Awaitable[T]], without: T) -> T:
        """Carry out an operation; return `without` where the store fails, or is not asked."""
        return await self._result(self._begin(name, operation), without)

    def _begin(self, name: str, operation: Callable[[Store], Awaitable[T]]) -> "asyncio.Task[T] | None":
        """Start an operation, if the breaker lets it through."""
        store = self._store
        if store is None or not self._breaker.admit():
            return None
        limit = self._limit

        async def limited() -> T:
            async with asyncio.timeout(limit):
                return await operation(store)

        task = asyncio.get_running_loop().create_task(limited())
        self._breaker.begin(task)
        task.add_done_callback(partial(self._ended, name))
        return task

    async def _result(self, task: "asyncio.Task[T] | None", without: T) -> T:
        if task is None:
            return without
        await asyncio.wait([task])  # which leaves the task alone when the caller is cancelled
        return without if task.cancelled() or task.exception() is not None else task.result()

    def _ended(self, name: str, task: "asyncio.Task[object]") -> None:
        """Tell the breaker how an operation ended."""
        if task.cancelled() and task.cancelling():
            self._breaker.ended(task)  # from outside: another operation stalled, or the event loop ends
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._breaker.succeeded(task)
            return
        self._breaker.failed(task, stalled=isinstance(error, TimeoutError))
        # The error's text may hold the store's address, with a password in it.
        what = f"the store failed ({type(error).__name__} in {name})"
        if self._breaker.warned:
            log.debug("%s again", what)
            return
        self._breaker.warned = True
        message = f"{what}: continuing without it, retrying every {self._retry_seconds:g} s at the latest (logged once)"
        log.warning("%s", message)
        self._notify("on_warning", lambda: WarningEvent(kind="store", message=message, error=error))
