"""When the next call of a map may start: the pauses after a 429, and the pace a service grants. Pure.

A service that grants r calls a second refuses a call as soon as its allowance is used up. Between two such refusals, dt
seconds apart, about r * dt calls were taken; so `spacing`, the seconds between two starts, becomes dt / calls. A pace
slightly above r costs one refusal now and then, and is the fastest that the service takes. Estimates of few calls are
rough, therefore one refusal at most doubles the spacing, and the pace grows again by 2, 6, 18 … % with each period of
answers without such a refusal. A pace that was refused after it had grown returns to the pace before; the periods
double then, from 30 to 160 answers.

A single refusal pauses for one spacing. Refusals in a row, without a call taken between, double the pause, from the
fourth on at least as `Retry.first_delay` says, up to `Retry.max_delay`: a minute may be used up, or others share the
limit. After a pause the calls do not start all at once, since a used-up service would refuse all of them: the starts
are as far apart as a refusal takes, then closer and closer.
"""

from collections import deque
from typing import Final

from ...config import Retry

__all__ = ["Pace"]

_PERIODS: Final = (30, 160)  # answers before the pace grows
_STEP: Final = 0.02
_FEW: Final = 4  # calls between two refusals that say nothing about the pace
_ROUGH: Final = 20  # calls of an estimate that may be one call off
_RECENT: Final = 80  # calls; older refusals say nothing about today's pace
_SURER: Final = 3  # refusals in a row after which pauses are no longer short


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
        self._spacing_before = 0.0  # before the pace last grew; 0 if it was refused since
        self._step = _STEP
        self._period = _PERIODS[0]
        self._credit = 0  # answers in this period

    def start(self, now: float) -> None:
        """Note a start."""
        if self._began is None:
            self._began = now
        self._starts += 1
        gap = max(self.spacing, self._ramp / self._starts)
        if gap:
            # A late timer is made up for, by up to one start.
            self.resume_at = max(self.resume_at, now - self.spacing) + gap

    def answered(self) -> None:
        """Note an answer to a call that started after the last refusal."""
        self._in_a_row = 0
        if not self.spacing:
            return
        self._credit += 1
        if self._credit >= self._period:
            self._credit = 0
            self._spacing_before = self.spacing
            self.spacing /= 1 + self._step
            self._step = min(3 * self._step, 1.0)

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
        self.estimate(taken, now)
        row = self._in_a_row
        self._in_a_row += 1
        pause = (self.spacing or self._average(taken, now) or self._policy.first_delay) * 2.0 ** min(row, 60)
        if row >= _SURER:
            pause = max(pause, self._policy.first_delay * 2.0 ** min(row - _SURER, 60))
        return min(pause, self._policy.max_delay) * (1 - random / 2 if row else 1)

    def estimate(self, taken: int, now: float) -> None:
        """Estimate the pace anew, at a refusal."""
        if self._spacing_before:
            modest = self._step <= 3 * _STEP
            self.spacing = self._spacing_before if modest else (self.spacing * self._spacing_before) ** 0.5
            self._spacing_before = 0.0
            self._period = min(2 * self._period, _PERIODS[1])
            self._marks.clear()
        elif self._marks and self._marks[-1][1] >= taken:
            self._marks.pop()  # the same allowance is still used up
        else:
            self._measure(taken, now)
        self._marks.append((now, taken))
        self._credit, self._step = 0, _STEP

    def _measure(self, taken: int, now: float) -> None:
        most = min(2 * (self.spacing or self._average(taken, now)), self._policy.max_delay)
        while self._marks and taken - self._marks[0][1] > _RECENT:
            self._marks.popleft()
        found = self.spacing
        for at, before in self._marks:
            calls = taken - before
            if calls >= _FEW:
                found = max(found, (now - at) / (calls + (calls < _ROUGH)))
        found = min(found, most)
        if found > 1.1 * self.spacing:
            self._period = _PERIODS[0]
        self.spacing = found

    def _average(self, taken: int, now: float) -> float:
        return 0.0 if self._began is None else (now - self._began) / max(taken, 1)
