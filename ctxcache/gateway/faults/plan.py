"""The faults that are set: which of them strike a call, and how often they did. Pure: the time is a parameter."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from ...errors import APIStatusError, RateLimitError
from .fault import Fault, chance
from .grammar import read_fault

__all__ = ["Limiter", "Plan", "Setting"]

_MINUTE: Final = 60.0


class Limiter:
    """The calls that a `limits` fault lets through.

    Args:
        fault: has `rpm` or `at_once`, or both.
    """

    def __init__(self, fault: Fault) -> None:
        self._rpm: Final = fault.rpm
        self._at_once: Final = fault.at_once
        self._begun: Final[deque[float]] = deque()
        self._running = 0

    def enter(self, now: float) -> APIStatusError | None:
        """Begin a call, which `leave` ends; or return the refusal, whose pause is just long enough.

        Args:
            now: seconds, by any clock.
        """
        while self._begun and self._begun[0] <= now - _MINUTE:
            self._begun.popleft()
        if self._at_once is not None and self._running >= self._at_once:
            message = f"{self._at_once} requests at a time are the limit."
            return RateLimitError(message, status=429, code="InflightBatchsizeExceeded", retry_after=1)
        if self._rpm is not None and len(self._begun) >= self._rpm:
            message = f"{self._rpm} requests a minute are the limit."
            pause = self._begun[0] + _MINUTE - now
            return RateLimitError(message, status=429, code="RateLimitExceeded.EndpointRPMExceeded", retry_after=pause)
        self._begun.append(now)
        self._running += 1
        return None

    def leave(self) -> None:
        """End a call that `enter` began."""
        self._running -= 1


@attrs.define(eq=False)
class Setting:
    """A fault that is set.

    Attributes:
        fault: the fault.
        calls: how many calls that the fault concerns came since.
        struck: how many of them were struck.
        limiter: of a `limits` fault.
    """

    fault: Fault
    calls: int = 0
    struck: int = 0
    limiter: Limiter | None = None

    def strikes(self) -> bool:
        """Count a call; return whether the fault strikes it."""
        fault = self.fault
        self.calls += 1
        if self.spent or (fault.nth is not None and self.calls < fault.nth):
            return False
        if fault.probability is not None and chance(fault.seed or 0, self.calls) >= fault.probability:
            return False
        self.struck += 1
        return True

    @property
    def spent(self) -> bool:
        """Whether the fault will strike no more."""
        most = 1 if self.fault.nth is not None and self.fault.times is None else self.fault.times
        return most is not None and self.struck >= most


class Plan:
    """All faults that are set. False where none is.

    Args:
        unreachable: called with True when a constant `outage` is set, and with False when the last one is healed.
        faults: the faults to begin with; a single one needs no list.
    """

    def __init__(self, unreachable: Callable[[bool], object], faults: Iterable[Fault | str] = ()) -> None:
        self._settings: list[Setting] = []
        self._unreachable: Final = unreachable
        for fault in [faults] if isinstance(faults, Fault | str) else faults:
            self.set(fault)

    def __bool__(self) -> bool:
        return bool(self._settings)

    @property
    def has_outage(self) -> bool:
        """Whether nothing can be reached."""
        return any(setting.fault.kind == "outage" and setting.fault.is_constant for setting in self._settings)

    def set(self, given: Fault | str) -> Setting:
        """Set a fault, given as such or in one line."""
        fault = given if isinstance(given, Fault) else read_fault(given)
        setting = Setting(fault, limiter=Limiter(fault) if fault.kind == "limits" else None)
        self._settings = [*self._settings, setting]
        if self.has_outage:
            self._unreachable(True)
        return setting

    def heal(self, setting: Setting | None = None) -> None:
        """End a fault, or all of them; calls that were struck before go on as they are."""
        had_outage = self.has_outage
        self._settings = [] if setting is None else [other for other in self._settings if other is not setting]
        if had_outage and not self.has_outage:
            self._unreachable(False)

    def strike(self, endpoint: str) -> list[Setting]:
        """Count a call of an endpoint, `create` or `chat`; return the faults that strike it, in the order set."""
        struck = list(self._strike(endpoint))
        self._settings = [setting for setting in self._settings if not setting.spent]
        return struck

    def _strike(self, endpoint: str) -> Iterator[Setting]:
        for setting in self._settings:
            if setting.fault.concerns(endpoint) and setting.strikes():
                yield setting
