"""Beginnings that many chats share, found by counting. Pure.

Every beginning of every chat is counted by a hash, in a table of bounded size: a count that was not needed for the
longest time is let go. A beginning is learned when so many chats have begun so.

A conversation sends all earlier messages with each turn. So a chat that goes on from an earlier one is the same chat,
and only the beginnings that are new count. If a second chat goes on from the same one, that is a branch, and counts as
a chat of its own.
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
        self._whole: Final[OrderedDict[bytes, int]] = OrderedDict()  # how many chats may go on from here

    def learn(self, beginnings: Iterable[tuple[bytes, int]], whole: bytes) -> set[bytes]:
        """Count the beginnings of a chat; return those that are learned.

        Args:
            beginnings: the hash and the bytes of each, the shortest first.
            whole: the hash of the whole chat.
        """
        keys = [key for key, size in beginnings if size >= self._least_bytes]
        if not keys:
            return set()
        counted = self._counted_before(keys)
        for place, key in enumerate(keys):
            _add(self._counts, key, 0 if place < counted else 1)
        _add(self._whole, whole, 1)
        learned = {key for key in keys if self._counts[key] >= self._times}
        for table in (self._counts, self._whole):
            while len(table) > self._capacity:
                table.popitem(last=False)
        return learned

    def _counted_before(self, keys: list[bytes]) -> int:
        """Return how many of the beginnings were counted with the chat that this one goes on from."""
        for place in reversed(range(len(keys))):
            left = self._whole.pop(keys[place], 0)
            if left > 1:
                self._whole[keys[place]] = left - 1
            if left:
                return place  # the whole was no beginning then
        return 0


def _add(table: OrderedDict[bytes, int], key: bytes, number: int) -> None:
    table[key] = table.pop(key, 0) + number
