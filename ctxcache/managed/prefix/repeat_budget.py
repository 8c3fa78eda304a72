"""`RepeatBudget`: how many more repeats a prefix can afford. Pure.

Each call pays in a share of a repeat, and each repeat takes out a whole one. So repeats stay a share of the calls,
however bad the service is, and a few calls that meet trouble may be repeated all the same.
"""

from typing import Final

__all__ = ["SHARE", "RepeatBudget"]

SHARE: Final = 0.25  # repeats for each call
_RESERVE: Final = 10.0  # at the beginning
_MOST: Final = 2000.0


class RepeatBudget:
    """A token bucket, filled by calls.

    Attributes:
        tokens: the repeats that may be made. A call pays with `budget.tokens += SHARE`, without a function call.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = _RESERVE

    def withdraw(self) -> bool:
        """Take out a repeat; False if there is none left."""
        self.tokens = min(self.tokens, _MOST)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
