"""Beginnings that many chats share, found by counting. Pure.

Every beginning of every chat is counted by its hash, in a table of bounded size: a count that was not needed for the
longest time is let go. A beginning is learned when so many chats have begun so.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

__all__ = ["Learner"]

_CAPACITY: Final = 50_000  # hashes of 16 bytes: some 10 MB


class Learner:
    """Counts beginnings.

    Args:
        times: how many chats must begin so.
        tokens: the least tokens of a beginning, by a rough count: four bytes each.
        capacity: the most counts kept.
    """

    def __init__(self, times: int, tokens: int, capacity: int = _CAPACITY) -> None:
        self._times: Final = times
        self._least_bytes: Final = 4 * tokens
        self._capacity: Final = capacity
        self._counts: Final[OrderedDict[bytes, int]] = OrderedDict()

    def learn(self, beginnings: Iterable[tuple[bytes, int]]) -> set[bytes]:
        """Count the beginnings of a chat; return those that are learned.

        Args:
            beginnings: the hash and the bytes of each.
        """
        learned = set()
        for key, size in beginnings:
            if size < self._least_bytes:
                continue
            count = self._counts.pop(key, 0) + 1
            self._counts[key] = count
            if count >= self._times:
                learned.add(key)
        while len(self._counts) > self._capacity:
            self._counts.popitem(last=False)
        return learned
