"""When the next call of a map may start: the pauses after a 429, and the pace a service grants. Pure.

A service that grants r calls a second refuses a call as soon as its allowance is used up. Between two such refusals, dt
seconds apart, r * dt calls were taken; so `spacing`, the seconds between two starts, becomes dt / calls. At the first
one, the calls taken since the beginning are the upper limit of the pace. One refusal at most doubles the spacing, or
the mean time between calls so far.

A pace slightly above r costs one refusal now and then, and is the fastest that the service takes: so the pace grows by
2, 6, 18, 54, 54…% with each period of answers without a refusal. A refusal after that takes back the last step at
most, and doubles the periods, up to 160 answers. A period ends after 4 seconds, too, if 3 answers came, after a refusal
of a faster pace 8 and then 16 seconds: a pace that was found while other processes used up the limit is left soon after
they have gone.

A single refusal pauses for one spacing. Refusals in a row, without a call taken between, triple the pause, from
`Retry.first_delay` / 8 up to `Retry.max_delay`: a minute may be used up, or others share the limit. After a pause the
calls do not start all at once, since a used-up service would refuse all of them: the starts are as far apart as a
refusal takes, then closer and closer.
"""

from collections import deque
from typing import Final

from ...config import Retry

__all__ = ["Pace"]

_PERIODS: Final = (10, 20, 160)  # answers before the pace grows: after a rough estimate, a good one, and at most
_PERIOD_SECONDS: Final = (4.0, 16.0)  # the shortest and the longest
_FEWEST: Final = 3  # answers in a period
_STEPS: Final = (0.02, 0.54)  # growth of the pace, the first and the largest
_LARGE_STEP: Final = 0.1
_RECENT: Final = 80  # calls; older refusals say nothing about today's pace
_LATE: Final = 0.002  # seconds that a timer may ring late


class Pace:
    """The starts of the calls of one map.

    Args:
        policy: the lengths of pauses.

    Attributes:
        spacing: seconds between two starts; 0 while no limit in time is known.
        resume_at: no call starts before.
    """

    def __init__(self, policy: Retry) -> None:
        self.spacing = 0.0
        self.resume_at = float("-inf")
        self._policy = policy
        self._began: float | None = None
        self._ramp = 0.0  # seconds that a refusal takes, twice
        self._starts = 0  # since the last pause
        self._in_a_row = 0  # pauses without a call taken since
        self._marks: deque[tuple[float, int]] = deque(maxlen=4)  # refusals: time, and calls taken by then
        self._grown = 0.0  # the last step of the pace since the last estimate
        self._step = _STEPS[0]
        self._period = _PERIODS[1]
        self._period_seconds = _PERIOD_SECONDS[0]
        self._average = 0.0  # seconds a call from the beginning to the last refusal; 0 before
        self._credit = 0  # answers in this period
        self._taken = 0  # calls taken by the last refusal

    def start(self, now: float, *, least: float = 0.0) -> None:
        """Note a start; `least` is the shortest time to the next one."""
        if self._began is None:
            self._began = now
        self._starts += 1
        spacing = max(self.spacing, least)
        gap = max(spacing, self._ramp / self._starts)
        if gap:
            # A late timer is made up for, by up to one start or the usual lateness.
            self.resume_at = max(self.resume_at, now - max(spacing, _LATE)) + gap

    def answered(self) -> None:
        """Note an answer to a call that started after the last refusal."""
        # The allowance was used up, that is certain; or others used it up, while few calls were taken here.
        if self._in_a_row > 1 and self._taken >= _PERIODS[0]:
            self.spacing = max(self.spacing, self._average)
        self._in_a_row = 0
        if not self.spacing:
            return
        self._credit += 1
        if self._credit >= min(self._period, max(self._period_seconds / self.spacing, _FEWEST)):
            self._credit = 0
            self._grown = self._step
            if self._step > _LARGE_STEP:  # the limit is far
                self._period = min(self._period, _PERIODS[1])
            self.spacing /= 1 + self._step
            self._step = min(3 * self._step, _STEPS[1])

    def pause(self, seconds: float, now: float, took: float) -> None:
        """Let no call start for some seconds, and few at once afterwards; `took` is how long the refusal took."""
        self.resume_at = max(self.resume_at, now + seconds)
        self._ramp = 2 * took
        self._starts = 0

    def refused(self, taken: int, now: float, random: float) -> float:
        """Slow down after a call that started too early; return the seconds to pause.

        Args:
            taken: calls of the map that were not refused.
            now: the clock, in seconds.
            random: a random number in [0, 1); shortens repeated pauses by up to a half.
        """
        row = self._in_a_row
        self._in_a_row += 1
        average = 0.0 if self._began is None else (now - self._began) / max(taken, 1)
        self._taken = taken
        if not row:
            self._estimate(taken, now, average)
        self._average = average
        pause = self.spacing
        if row or not pause:
            shortest = self._policy.first_delay / 8 or average  # `first_delay` may be 0
            pause = max(pause * 2.0 ** min(row, 60), shortest * 3.0 ** min(row, 60))
        return min(pause, self._policy.max_delay) * (1 - random / 2 if row else 1)

    def _estimate(self, taken: int, now: float, average: float) -> None:
        """Estimate the spacing anew, at the first refusal in a row."""
        while len(self._marks) > 1 and taken - self._marks[0][1] > _RECENT:
            self._marks.popleft()
        found, calls = self.spacing, 0
        for at, before in self._marks:
            spacing = (now - at) / max(taken - before, 1)
            if spacing > found:
                found, calls = spacing, taken - before
        if self._grown:
            found = min(found, (1 + self._grown) * self.spacing)
            self._period = min(2 * self._period, _PERIODS[2])
            self._period_seconds = min(2 * self._period_seconds, _PERIOD_SECONDS[1])
        else:
            found = min(found, 2 * max(self.spacing, self._average or average), self._policy.max_delay)
            if found > 1.1 * self.spacing:
                self._period = min(max(calls, _PERIODS[0]), _PERIODS[1])
        self.spacing = found
        self._marks.append((now, taken))
        self._credit, self._step, self._grown = 0, _STEPS[0], 0.0
