"""The calls of each client: how many are under way, and how much was used in the last minute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .rules.clients import NO_LIMITS, Client
from .rules.rates import Rates

__all__ = ["Calls"]


class Calls:
    """Counts the calls of every client that has limits.

    Args:
        clock: the wall clock, Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._rates: Final[dict[str, Rates]] = {}

    @contextmanager
    def begin(self, client: Client) -> Iterator[Callable[[int], None]]:
        """Count a call from the start to the end of the block; yield a function that counts tokens.

        Raises:
            APIStatusError: a limit of the key would be passed.
        """
        if client.limits == NO_LIMITS:
            yield _count_nothing
            return
        rates = self._rates.setdefault(client.owner, Rates())
        rates.begin(client.limits, self._clock())
        try:
            yield lambda tokens: rates.tokens.add(tokens, self._clock())
        finally:
            rates.end()


def _count_nothing(tokens: int) -> None:
    """Stand for the count of tokens where no limit asks."""
