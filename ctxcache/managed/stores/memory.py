"""A store in the memory of this process."""

import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from ...errors import SessionError
from ...keywords import suggest_keywords
from .protocol import LONGEST_LEASE, LONGEST_PAUSE, ClosingStore, StoredContext

__all__ = ["MemoryStore"]

_SWEEP_FROM: Final = 64


@attrs.define
class _Entry:
    value: str  # the id of a context, or the holder of a lease; empty for a pause
    until: float
    ttl: float = 0.0


_Entries = dict[str, _Entry]


class MemoryStore(ClosingStore):
    """Shares contexts between the tasks of one process, in any number of event loops and threads.

    Holds at most about twice as many entries as are alive: expired entries are deleted in passing.

    Args:
        clock: monotonic seconds.
    """

    @suggest_keywords
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # held for a few instructions only, never across an await
        self._contexts: _Entries = {}
        self._leases: _Entries = {}
        self._pauses: _Entries = {}
        self._sweep_at = _SWEEP_FROM
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._contexts)} contexts{', closed' if self._closed else ''}>"

    async def get(self, key: str) -> StoredContext | None:
        """Return the context kept for a key, None if there is none or it has expired."""
        with self._lock:
            now = self._now()
            entry = _alive(self._contexts, key, now)
            return None if entry is None else StoredContext(entry.value, entry.ttl, entry.until - now)

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context for `remaining` seconds, in place of any kept before."""
        with self._lock:
            now = self._now()
            self._sweep(now)
            self._contexts[key] = _Entry(context_id, now + remaining, ttl)

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """Postpone the expiry of a context; never shorten it, never change another context."""
        with self._lock:
            now = self._now()
            entry = _alive(self._contexts, key, now)
            if entry is not None and entry.value == context_id:
                entry.until = max(entry.until, now + remaining)

    async def forget(self, key: str, context_id: str) -> None:
        """Drop a context, unless another is kept."""
        with self._lock:
            _drop(self._contexts, key, context_id, self._now())

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or extend the lease of a key; False while another holder has it."""
        with self._lock:
            now = self._now()
            entry = _alive(self._leases, key, now)
            if entry is not None and entry.value != holder:
                return False
            self._sweep(now)
            self._leases[key] = _Entry(holder, now + min(seconds, LONGEST_LEASE))
            return True

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        with self._lock:
            _drop(self._leases, key, holder, self._now())

    async def pause(self, key: str, seconds: float) -> None:
        """Note that nobody is to call for so many seconds; never shorten a pause."""
        with self._lock:
            now = self._now()
            self._sweep(now)
            entry = _alive(self._pauses, key, now)
            until = now + min(seconds, LONGEST_PAUSE)
            self._pauses[key] = _Entry("", until if entry is None else max(entry.until, until))

    async def paused(self, key: str) -> float:
        """Return the seconds until the pause of a key ends; 0 without a pause."""
        with self._lock:
            now = self._now()
            entry = _alive(self._pauses, key, now)
            return 0.0 if entry is None else entry.until - now

    async def aclose(self) -> None:
        """Delete all entries."""
        with self._lock:
            self._closed = True
            for entries in self._kinds:
                entries.clear()

    def _now(self) -> float:
        if self._closed:
            raise SessionError("the store is closed")
        return self._clock()

    @property
    def _kinds(self) -> tuple[_Entries, ...]:
        return self._contexts, self._leases, self._pauses

    def _sweep(self, now: float) -> None:
        # Each time the entries have doubled: amortized constant work per entry.
        if sum(map(len, self._kinds)) < self._sweep_at:
            return
        for entries in self._kinds:
            for key in [key for key, entry in entries.items() if entry.until <= now]:
                del entries[key]
        self._sweep_at = max(_SWEEP_FROM, 2 * sum(map(len, self._kinds)))


def _alive(entries: _Entries, key: str, now: float) -> _Entry | None:
    """Find an entry, unless it has expired: then delete it."""
    entry = entries.get(key)
    if entry is not None and entry.until <= now:
        del entries[key]
        return None
    return entry


def _drop(entries: _Entries, key: str, value: str, now: float) -> None:
    entry = _alive(entries, key, now)
    if entry is not None and entry.value == value:
        del entries[key]
