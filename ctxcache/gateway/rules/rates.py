"""How much one client may call: at once, and in a minute. Time is a parameter.

A minute slides: of any 60 seconds none has more than the limit. Amounts are kept by the second in which they were used,
and count until all of that second is a minute old, so a minute takes 61 numbers however many calls there are.

Tokens are known after a call has begun, so the first call beyond the limit is the one after the tokens were used: a
call is accepted while less than the limit was used.
"""

import math
from collections import deque
from typing import Final

import attrs

from .clients import KeyLimits
from .refusals import too_many_calls, too_many_requests, too_many_tokens

__all__ = ["Minute", "Rates"]

_SECONDS: Final = 60


class Minute:
    """What was used in the last minute."""

    def __init__(self) -> None:
        self._seconds: Final[deque[tuple[int, int]]] = deque()  # each second, and what was used in that
        self._total = 0

    def add(self, amount: int, now: float) -> None:
        """Use an amount."""
        self._forget(now)
        second = math.floor(now)
        before = self._seconds.pop()[1] if self._seconds and self._seconds[-1][0] == second else 0
        self._seconds.append((second, before + amount))
        self._total += amount

    def wait(self, limit: int, now: float) -> float:
        """Return after how many seconds less than the limit, at least 1, was used in a minute: 0 for now."""
        self._forget(now)
        left, wait = self._total, 0.0
        for second, amount in self._seconds:
            if left < limit:
                break
            left -= amount
            wait = second + 1 + _SECONDS - now
        return wait

    def _forget(self, now: float) -> None:
        if self._seconds and self._seconds[-1][0] > now:  # the clock was set back
            self._seconds.clear()
            self._seconds.append((math.floor(now), self._total))
        while self._seconds and self._seconds[0][0] + 1 + _SECONDS <= now:
            self._total -= self._seconds.popleft()[1]


@attrs.define(eq=False)
class Rates:
    """The calls of one client.

    Attributes:
        calls: how many are under way.
        requests: how many began in the last minute.
        tokens: how many tokens were used in the last minute, of questions, contexts and replies.
    """

    calls: int = 0
    requests: Minute = attrs.field(factory=Minute)
    tokens: Minute = attrs.field(factory=Minute)

    def begin(self, limits: KeyLimits, now: float) -> None:
        """Count a call that begins.

        Raises:
            APIStatusError: a limit would be passed; nothing is counted. `retry_after` is the time after which the call
                is accepted, if no other call comes before, and 1 where that depends on when other calls end.
        """
        if limits.calls is not None and self.calls >= limits.calls:
            raise too_many_calls(limits.calls)
        requests = 0.0 if limits.requests_per_minute is None else self.requests.wait(limits.requests_per_minute, now)
        tokens = 0.0 if limits.tokens_per_minute is None else self.tokens.wait(limits.tokens_per_minute, now)
        if limits.tokens_per_minute is not None and tokens > requests:
            raise too_many_tokens(limits.tokens_per_minute, tokens)
        if limits.requests_per_minute is not None and requests > 0:
            raise too_many_requests(limits.requests_per_minute, requests)
        self.calls += 1
        self.requests.add(1, now)

    def end(self) -> None:
        """Count a call that ends."""
        self.calls -= 1
