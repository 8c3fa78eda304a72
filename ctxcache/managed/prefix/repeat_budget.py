"""`RepeatBudget`: how many more repeats a prefix can afford. Pure.

Each call pays in a share of a repeat, and each repeat takes out a whole one. So repeats stay a share of the calls,
however bad the service is, and a few calls that meet trouble may be repeated all the same.
"""

from typing import Final

__all__ = ["RepeatBudget"]

_SHARE: Final = 0.25  # repeats for each call
_RESERVE: Final = 10.0  # at the beginning
_MOST: Final = 2000.0


class RepeatBudget:
    """A token bucket, filled by calls."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _RESERVE

    def deposit(self) -> None:
        """Note a call."""
        self._tokens = min(self._tokens + _SHARE, _MOST)

    def withdraw(self) -> bool:
        """Take out a repeat; False if there is none left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
