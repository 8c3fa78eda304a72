"""How many calls at once: as many as the service takes. Pure: clock and randomness are arguments.

Additive increase, multiplicative decrease, as in TCP. It begins with a few calls at once and adds one for each success
until the service says 429 for the first time; from then on it adds one for every `limit` successes. A 429 halves the
limit, once for all calls that were under way together: they started in one window, which ends with the cut, and what
others of that window meet says nothing of the new limit. After a 429 nobody starts before the service wants it: the
pause is everybody's.

A question refused with 429 did not run and goes again, however often; it is given up where waiting does not help: the
service names a wait longer than `Retry.max_retry_after`, or nothing has succeeded since a first 429 for
`Retry.max_elapsed` seconds.
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

    A call is begun with `start`, which gives the window it belongs to, and ended with one of `succeeded`, `refused`
    (429) and `failed` (anything else).

    Args:
        concurrency: the most calls at once.
        policy: the lengths of pauses, and when to give up; its `attempts` are not for 429s.

    Attributes:
        limit: calls that may be under way at once now.
        running: calls under way.
        window: the number of cuts so far, which names the window.
        resume_at: when the pause ends; before it nobody starts.
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
        """Begin a call; return its window."""
        self.running += 1
        return self.window

    def failed(self) -> None:
        """End a call that says nothing about the limit."""
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
        """End a call that got a 429: cut, and pause.

        Args:
            window: the call's.
            error: what it got; with the wait the service asks for, if it names one.
            now: the clock, in seconds.
            random: a random number in [0, 1).

        Returns:
            Whether its question is to go again, after the pause.
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
            return True  # the cut before made the pause for it
        elapsed = now - self._trouble_since
        delay = next_delay(self._policy, error, attempt=max(self._refusals, 1), elapsed=elapsed, jitter=random)
        # What is given up does not make the others rush.
        pause = self._policy.max_delay if delay is None else delay
        self.resume_at = max(self.resume_at, now + pause)
        return delay is not None
