"""How many calls at once: as many as the service takes. Pure: clock and randomness are arguments.

Additive increase, multiplicative decrease, as in TCP. The limit begins small and grows by one for each success until
the first 429; from then on by one for every `limit` successes. A 429 halves the limit, once for all calls under way at
that moment: they form a window, which ends with the cut, and later refusals of the same window say nothing about the
new limit. After a 429 no call starts before the service allows: the pause applies to the whole map.

A question refused with 429 did not run, and is retried without counting attempts. It fails only where waiting does not
help: the service asks for a longer wait than `Retry.max_retry_after`, or no call has succeeded for `Retry.max_elapsed`
seconds since a first 429.
"""

import sys
from typing import Final

import attrs

from ...config import Retry
from ...errors import RateLimitError
from ...retry import next_delay

__all__ = ["Limiter"]

_FIRST: Final = 8


class Limiter:
    """The limit of one map.

    A call begins with `start`, which returns its window, and ends with `succeeded`, `refused` (429) or `failed`
    (anything else).

    Args:
        concurrency: the most calls at once.
        policy: the lengths of pauses, and when to give up; `attempts` does not apply to 429s.

    Attributes:
        limit: calls that may be under way at once now.
        running: calls under way.
        window: the number of cuts so far, which names the window.
        resume_at: when the pause ends; no call starts before.
    """

    def __init__(self, concurrency: int, policy: Retry) -> None:
        self.limit = min(concurrency, _FIRST)
        self.running = 0
        self.resume_at = float("-inf")
        self._most = concurrency
        self._policy = attrs.evolve(policy, attempts=sys.maxsize)
        self.window = 0
        self._credit = 0  # successes since the limit last grew
        self._refusals = 0  # cuts since the last success
        self._trouble_since: float | None = None  # the first 429 since the last success

    def may_start(self, now: float) -> bool:
        """Whether one more call may start."""
        return self.running < self.limit and now >= self.resume_at

    def start(self) -> int:
        """Begin a call and return its window."""
        self.running += 1
        return self.window

    def failed(self) -> None:
        """End a call whose failure says nothing about the limit."""
        self.running -= 1

    def succeeded(self, window: int) -> None:
        """End a call that was answered."""
        self.running -= 1
        self._refusals, self._trouble_since = 0, None
        if window != self.window or self.limit >= self._most:
            return
        self._credit += 1
        if self.window == 0 or self._credit >= self.limit:
            self.limit += 1
            self._credit = 0

    def refused(self, window: int, error: RateLimitError, now: float, random: float) -> bool:
        """End a call that got a 429: cut the limit, and pause.

        Args:
            window: the window of the call.
            error: the 429, with the wait the service asks for, if any.
            now: the clock, in seconds.
            random: a random number in [0, 1).

        Returns:
            Whether the question is to be retried after the pause.
        """
        self.running -= 1
        if self._trouble_since is None:
            self._trouble_since = now
        if window == self.window:
            self.window += 1
            self._credit = 0
            self._refusals += 1
            self.limit = max(self.limit // 2, 1)
        elif error.retry_after is None:
            return True  # the cut of its window has begun a pause
        elapsed = now - self._trouble_since
        delay = next_delay(self._policy, error, attempt=max(self._refusals, 1), elapsed=elapsed, jitter=random)
        # Giving up on one question must not end the pause for the rest.
        pause = self._policy.max_delay if delay is None else delay
        self.resume_at = max(self.resume_at, now + pause)
        return delay is not None
