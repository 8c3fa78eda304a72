"""An outage: no connection can be made, so nothing runs, and the questions wait. Pure.

While the service is away, one question at a time is asked: the probe. Each probe that fails doubles the pause before
the next one, from `Retry.first_delay` up to `Retry.max_delay`. Any answer to a probe, even an error, ends the outage.
After `Retry.max_elapsed` seconds the questions fail instead of waiting, each with an error of its own::

    UP ──no connection──> AWAY ──a probe fails, max_elapsed has passed──> GIVEN_UP
    ^                     │  │                                               │
    └───────answer────────┘  └── a probe fails: wait, then the next one      └──answer──> UP
"""

import sys
from enum import Enum

import attrs

from ...config import Retry
from ...errors import APIConnectionError, APIStatusError, CtxCacheError, OutcomeUnknownError, StreamInterruptedError
from ...retry import next_delay

__all__ = ["Outage", "State", "proves_connection"]


class State(Enum):
    """Whether the service can be reached."""

    UP = "up"
    AWAY = "away"
    GIVEN_UP = "given up"


def proves_connection(error: CtxCacheError) -> bool:
    """Whether an error proves that a connection was made."""
    if isinstance(error, APIConnectionError):
        return error.sent
    return isinstance(error, APIStatusError | OutcomeUnknownError | StreamInterruptedError)


class Outage:
    """The state of the connection of one map.

    Args:
        policy: the pauses between probes, and how long to go on.

    Attributes:
        state: the state.
        since: when the outage began.
        resume_at: when the next probe may start.
    """

    def __init__(self, policy: Retry) -> None:
        self.state = State.UP
        self.since = 0.0
        self.resume_at = float("-inf")
        self._max_elapsed = policy.max_elapsed
        self._policy = attrs.evolve(policy, attempts=sys.maxsize, max_elapsed=sys.float_info.max)
        self._failed_probes = 0
        self._probing = False

    def may_start(self, now: float) -> bool:
        """Whether a call may start, as a probe if the service is away."""
        return self.state is not State.AWAY or (not self._probing and now >= self.resume_at)

    def start(self) -> bool:
        """Begin a call; return whether its answer ends an outage."""
        if self.state is State.AWAY:
            self._probing = True
        return self.state is not State.UP

    def failed(self, error: CtxCacheError, now: float, random: float, *, probe: bool) -> bool:
        """Note a call without a connection.

        Args:
            error: the error.
            now: the clock, in seconds.
            random: a random number in [0, 1); shortens the pause by up to a half.
            probe: what `start` returned.

        Returns:
            Whether the question is to be asked again.
        """
        if self.state is State.UP:
            self.state, self.since, self._failed_probes = State.AWAY, now, 0
        elif self.state is State.GIVEN_UP or not probe:
            return self.state is State.AWAY
        self._probing = False
        self._failed_probes += 1
        left = self.since + self._max_elapsed - now
        if left <= 0:
            self.state = State.GIVEN_UP
            return False
        pause = next_delay(self._policy, error, attempt=self._failed_probes, elapsed=0, jitter=random)
        self.resume_at = now + min(left, pause or 0.0)  # the last probe comes when the time is up
        return True

    def ended(self, *, probe: bool, connected: bool) -> bool:
        """Note the end of any other call; return whether that ends the outage.

        Args:
            probe: what `start` returned.
            connected: whether the call proved that a connection can be made.
        """
        if not probe or self.state is State.UP:
            return False
        self._probing = False
        if connected:
            self.state, self.resume_at = State.UP, float("-inf")
        return connected
