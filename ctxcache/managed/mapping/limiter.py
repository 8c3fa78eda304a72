"""How many calls at once: as many as the service takes. Pure: clock and randomness are arguments.

A service limits the calls at once or the calls in a time, and a 429 does not say which. So each 429 lowers the limit
that explains the refusal:

- More calls were under way than ever since the last cut: that call was one too many, and `limit` falls to the number of
  the other calls under way. Nobody waits: the refused question starts when the next answer frees a slot.
- As many calls were answered for a whole round, or no other call is under way: that call came too early, and the `Pace`
  slows down. Or another process took the slot: so while no pace is known, at least 40 calls were taken, others are
  under way and the 429 names no wait, the limit falls to their number first.
- The second 429 in a row, without an answer to a call started since: the service takes far fewer calls than before, and
  the limit falls to half of the calls under way. If these are few, the call may as well have come too early, and the
  `Pace` slows down, too.

The limit begins at 8 and doubles with each round of answers until the first 429. From then on the limit is a known
ceiling, and one more call is tried after 20 answers, as long as at most one call in 40 was refused; otherwise after
ten rounds, and 40 answers at least. While no 429 comes, 2, 4, 8 … more calls are added with each round. So a service
whose limit stays refuses few calls, and a limit that rises is found within some rounds. While many calls are added,
their starts are spread over a round, so that the first refusal arrives before many further calls have started. Only
answers count in whose time all slots were in use.

A `Retry-After` pauses all calls, whichever process got it. A probe that costs a pause is repeated after twenty times
the pause at the earliest.

A question refused with 429 did not run, and is retried without counting attempts. It fails only where waiting does not
help. Either no call has succeeded for `Retry.max_elapsed` seconds since a first 429; or the service asks for a wait
longer than `Retry.max_retry_after`: then no question is worth a call before that wait ends (`closed_until`).
"""

from typing import Final

import attrs

from ...config import Retry
from ...errors import RateLimitError
from .pace import Pace

__all__ = ["Call", "Limiter"]

_FIRST: Final = 8
_PROBE: Final = 20  # answers at the ceiling before one more call is tried, at least
_RARE: Final = 40  # calls taken for each one refused; below, probes are rarer:
_RARE_PROBE: Final = 40  # answers
_RARE_ROUNDS: Final = 10
_SMALL: Final = 2  # calls added at once, whose starts need not be spread
_PATIENCE: Final = 20  # times the pause of a probe, before the next probe
_LATEST: Final = 8  # answers of which the average latency is taken
_SAME: Final = 0.02  # seconds between the ends of two pauses that count as one: clocks and stores are not exact
_LONGEST_RAMP: Final = 0.1  # seconds between the first two starts after a pause of other processes, at most twice
_COARSE: Final = 4  # calls at once, below which one call more or less is no fine enough step


@attrs.frozen
class Call:
    """A call under way.

    Attributes:
        serial: its number among all calls of the map, from 1.
        level: calls under way at its start, itself included.
        paced: whether the pace alone decided when the call started: slots were free.
        at: the time of its start.
    """

    serial: int
    level: int
    paced: bool
    at: float


class Limiter:
    """The limits of one map.

    A call begins with `start`, and ends with `succeeded`, `refused` (429) or `failed` (anything else).

    Args:
        concurrency: the most calls at once.
        policy: the lengths of pauses, and when to give up; `attempts` does not apply to 429s.

    Attributes:
        limit: calls that may be under way at once now.
        running: calls under way.
        closed_until: every call would be refused before, and waiting so long is against the policy.
    """

    def __init__(self, concurrency: int, policy: Retry) -> None:
        self.limit = min(concurrency, _FIRST)
        self.running = 0
        self.closed_until = float("-inf")
        self._most = concurrency
        self._policy = policy
        self._pace = Pace(policy)
        self._serial = 0
        self._latency = 0.0  # seconds until an answer, on average
        self._taken = 0  # calls that ended without a 429
        self._refusals = 0  # calls that ended with one
        self._trouble_since: float | None = None  # the first 429 since the last success
        self._refused_at = 0  # the last call started before the last refusal
        self._in_a_row = 0  # refusals without an answer to a call started since
        self._cut_at = 0  # the last call started before the limit was last found too high; 0 before the first 429
        self._proven = 0  # calls at once that were answered for a round since
        self._ceiling = concurrency + 1  # the highest limit that was not refused, if known
        self._probed = False  # whether the last refusal was of a call too many
        self._probe_at = float("-inf")  # no probe before
        self._filled_at = 0  # the last call that took the last free slot
        self._credit = 0  # answers since the limit last changed
        self._held_since: float | None = None  # when other processes' pause began, if no call started since
        self._step = 1

    @property
    def resume_at(self) -> float:
        """When the pause ends; no call starts before."""
        return self._pace.resume_at

    def may_start(self, now: float) -> bool:
        """Whether one more call may start."""
        return self.running < self.limit and now >= self._pace.resume_at

    def hold(self, seconds: float, now: float) -> None:
        """Pause for so many seconds, as the service asked another process that shares the limit.

        Whatever is said, a call starts when none has started for `Retry.max_retry_after` seconds.
        """
        since = now if self._held_since is None else self._held_since
        end = min(now + seconds, since + self._policy.max_retry_after)
        if end > max(self.resume_at, now) + _SAME:
            self._held_since = since
            self._probe_at = max(self._probe_at, now + _PATIENCE * (end - now))
            self._pace.pause(end - now, now, min(self._latency, _LONGEST_RAMP))

    def start(self, now: float) -> Call:
        """Begin a call."""
        self._held_since = None
        self.running += 1
        self._serial += 1
        if self.running >= self.limit:
            self._filled_at = self._serial
        growing = self.limit < self._most and (not self._cut_at or self._step > _SMALL)
        self._pace.start(now, least=self._latency / (2 * self.limit) if growing else 0.0)
        return Call(self._serial, self.running, self._pace.spacing > 0 and self.running < self.limit, now)

    def failed(self) -> None:
        """End a call whose failure says nothing about the limits."""
        self.running -= 1
        self._taken += 1

    def succeeded(self, call: Call, now: float) -> None:
        """End a call that was answered."""
        full = call.serial <= self._filled_at  # all slots were in use during the call
        self.failed()
        self._latency += (now - call.at - self._latency) / min(self._taken, _LATEST)
        self._trouble_since = None
        if call.serial > self._refused_at:
            self._in_a_row = 0
            self._pace.answered()
        if call.serial > self._cut_at and full:
            self._widen(now)

    def _widen(self, now: float) -> None:
        """Count an answer; raise the limit if there were enough."""
        self._credit += 1
        if not self._cut_at:
            self._proven = self.limit
            self.limit = min(self.limit + 1, self._most)
            return
        if self._credit >= self.limit:
            self._proven = self.limit
        at_ceiling = self.limit == self._ceiling
        if self._credit < (self._answers_before_probe() if at_ceiling else self.limit):
            return
        if at_ceiling and now < self._probe_at:
            return
        if at_ceiling:
            self._ceiling, self._step = self._most + 1, 1
        self.limit = min(self.limit + self._step, self._most, self._ceiling)
        self._step *= 2
        self._credit = 0

    def _answers_before_probe(self) -> int:
        """How many answers at the ceiling allow one more call."""
        if self._taken >= _RARE * self._refusals:
            return max(_PROBE, self.limit)
        return max(_RARE_PROBE, _RARE_ROUNDS * self.limit)

    def refused(self, call: Call, error: RateLimitError, now: float, random: float) -> bool:
        """End a call that got a 429: lower the limit that explains the refusal.

        Args:
            call: the call.
            error: the 429, with the wait the service asks for, if any.
            now: the clock, in seconds.
            random: a random number in [0, 1).

        Returns:
            Whether the question is to be retried.
        """
        self.running -= 1
        self._refusals += 1
        if self._trouble_since is None:
            self._trouble_since = now
        asked = error.retry_after
        pause = self._lower(call, now, random, named=asked is not None)
        if asked is not None:
            if asked > self._policy.max_retry_after:
                self.closed_until = max(self.closed_until, now + asked)
                return False
            self._probe_at = max(self._probe_at, now + _PATIENCE * asked)
            pause = max(pause, asked)
        if pause:
            self._pace.pause(pause, now, now - call.at)
        return now - self._trouble_since + pause <= self._policy.max_elapsed

    def _lower(self, call: Call, now: float, random: float, *, named: bool) -> float:
        """Lower a limit; return the seconds to pause. `named`: whether the service named a wait."""
        if call.serial <= self._refused_at:  # started before the last refusal was known, and says the same
            if not call.paced:
                self._narrow(self.running)
                self._ceiling = self.limit if self._probed else self._ceiling
            return 0.0
        self._refused_at = self._serial
        self._in_a_row += 1
        if self.running and self._in_a_row > 1 and not call.paced:
            self._cut(self.running // 2)
            return self._pace.refused(self._taken + self.running, now, random) if self.running < _COARSE else 0.0
        if call.level > max(self._proven, 1) and (self._in_a_row > 2 or not call.paced):
            probe = self._cut_at and call.level == self._proven + 1  # the others are known not to be too many
            self._cut(max(self.running, self._proven) if probe else self.running)
            self._probed, self._ceiling = True, self.limit
            return 0.0
        if not (named or call.paced or self._pace.spacing) and self._taken >= _RARE and self.running >= _COARSE:
            self._cut(self.running)
            return 0.0
        self._cut_at = self._cut_at or self._serial
        self._probed, self._ceiling = False, self._most + 1
        if not self._pace.spacing:
            self._narrow(self.running)
        return self._pace.refused(self._taken + self.running, now, random)

    def _cut(self, limit: int) -> None:
        self._cut_at = self._serial
        self._proven = 0
        self._probed = False
        self._narrow(limit)

    def _narrow(self, limit: int) -> None:
        self.limit = max(min(self.limit, limit), 1)
        self._credit = 0
        self._step = 1
