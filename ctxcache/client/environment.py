"""The clocks, sleep and randomness of a session, as a value: tests pass clocks that are turned by hand."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import attrs

__all__ = ["Environment"]


@attrs.frozen(kw_only=True)
class Environment:
    """Clocks, sleep and randomness.

    Attributes:
        now: the time of day, Unix seconds; for a `Retry-After` date.
        clock: seconds that only go forward; for every time limit.
        sleep: waits so many seconds between two attempts.
        random: a number in [0, 1) that spreads out retries.
        look: the most seconds between two looks at the calls that wait for data.
        grace: seconds that hooks under way get when the session is closed.
    """

    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    look: float = 1.0
    grace: float = 5.0
