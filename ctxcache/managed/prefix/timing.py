"""`Timing`: the clock, sleep, randomness and time limits behind a `Prefix`; tests pass their own."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import attrs

__all__ = ["Timing"]


@attrs.frozen(kw_only=True)
class Timing:
    """Sources of time and randomness, and limits in seconds.

    Attributes:
        monotonic: a clock that never goes back.
        sleep: how to wait.
        random: a random number in [0, 1).
        store_limit: the longest that one store operation may take.
        first_store_pause, longest_store_pause: how long a failed store is left alone; doubled from failure to failure.
        lease: for how long the right to create is leased.
        lease_renewal: how often a running create renews its lease.
        first_poll, longest_poll: pauses between looks at the store while another process creates.
        pause_look: seconds between two looks at the store for a pause of other processes.
        patience: the longest wait for another process's create.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random
    store_limit: float = 3.0
    first_store_pause: float = 1.0
    longest_store_pause: float = 30.0
    lease: float = 5.0  # a holder that dies delays the others no longer than this
    lease_renewal: float = 1.0
    first_poll: float = 0.05
    longest_poll: float = 0.5
    pause_look: float = 0.2
    patience: float = 120.0  # a live holder renews its lease for as long as it creates; waiting longer helps nobody
