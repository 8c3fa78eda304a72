"""The calls of each client: how many are under way, and how much was used in the last minute.

Where several gateways share a state, the state counts, with a round trip for each call of a key that has such limits.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs

from .rules.clients import Client
from .rules.rates import Rates
from .state import SharedState

__all__ = ["Calls"]


@attrs.define
class _Tokens:
    """The tokens that a call has used."""

    used: int = 0

    def add(self, tokens: int) -> None:
        self.used += tokens


class Calls:
    """Counts the calls of every client whose key limits calls.

    Args:
        clock: the wall clock, Unix seconds.
        shared: counts in place of this gateway; None: there is only this gateway.
    """

    def __init__(self, clock: Callable[[], float], shared: SharedState | None) -> None:
        self._clock: Final = clock
        self._shared: Final = shared
        self._rates: Final[dict[str, Rates]] = {}

    @asynccontextmanager
    async def begin(self, client: Client) -> AsyncIterator[Callable[[int], None]]:
        """Count a call from the start to the end of the block; yield a function that counts tokens.

        Raises:
            APIStatusError: a limit of the key would be passed (429), or the shared state cannot be reached (503).
        """
        tokens = _Tokens()
        if not client.limits.limit_calls:
            yield tokens.add
        elif self._shared is None:
            rates = self._rates.setdefault(client.owner, Rates())
            rates.begin(client.limits, self._clock())
            try:
                yield lambda tokens: rates.tokens.add(tokens, self._clock())
            finally:
                rates.end()
        else:
            token = await self._shared.admit(client.owner, client.limits)
            try:
                yield tokens.add
            finally:
                self._shared.end(client.owner, token, tokens.used)
