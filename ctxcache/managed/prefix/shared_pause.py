"""`SharedPause`: when the service may be called again, as 429s told this process and all that share the store.

A rate limit is the account's, for each model, whatever the prefix and the process. So the wait that a 429 asks for is
noted in the store, under a key of the account and the model, and all processes wait.

A call looks for a pause at the moment of sending, so also after a wait for a connection. Each call waits
for `Retry.max_retry_after` at most, in all, and no more once a 429 came for the call itself.

No call waits for the store: a task beside the calls looks there, at most a few times a second, and only while calls are
made. So up to that long after a 429 in another process a call may still start, and gets a 429 of its own. Where the
store fails, or has no `pause` and `paused`, each process learns of a pause from its own 429s.
"""

import asyncio
from typing import Final

from .store_access import StoreAccess
from .timing import Timing

__all__ = ["SharedPause"]

_SAME: Final = 0.1  # seconds between the ends of two pauses that count as one: calls are refused together


class SharedPause:
    """The pause of one account and model.

    Args:
        store: the pause's key in the store.
        timing: the clock, how to wait, and how often to look at the store.
    """

    def __init__(self, store: StoreAccess, timing: Timing) -> None:
        self._store = store
        self._timing = timing
        self._told_until = float("-inf")  # by 429s here
        self._found_until = float("-inf")  # by the last look at the store
        self._next_look = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """Seconds until the pause ends, as far as known; 0 without a pause. Begins to look at the store if due."""
        if not self._store.exists:
            return 0.0
        now = self._timing.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._timing.pause_look
            if self._looking is None or self._looking.done() or self._looking.get_loop().is_closed():
                self._looking = asyncio.get_running_loop().create_task(self._look())
        return max(self._told_until - now, self._found_until - now, 0.0)

    async def _look(self) -> None:
        left = await self._store.paused()
        self._found_until = self._timing.monotonic() + left

    def begin(self, seconds: float) -> None:
        """Note the wait that a 429 asks for, here and in the store."""
        until = self._timing.monotonic() + seconds
        if self._store.exists and until > self._told_until + _SAME:
            self._told_until = until
            self._store.pause(seconds)

    async def wait(self, longest: float) -> float:
        """Wait for the end of the pause, but no longer than so many seconds; return how many of them are left."""
        latest = self._timing.monotonic() + longest
        while (seconds := min(self.seconds, latest - self._timing.monotonic())) > 0:
            await self._timing.sleep(seconds)
        return max(latest - self._timing.monotonic(), 0.0)
