"""How tokens are counted: by a rule that needs no model, gives the same number everywhere and takes linear time.

A wide character (Chinese, Japanese, Korean) is one token. Other text has one token for every four characters begun,
counted anew after a wide character: "你好" is 2, "Hello" is 2, "hi你there" is 1 + 1 + 2. Models of this kind count
about as many; the service's own tokenizer is not public.

A prefix never has more tokens than the whole text, and counting piece by piece gives the same number as counting at
once, however the pieces are cut: `max_tokens` cuts a streamed and a plain answer at the same character.
"""

import re
import sys
from collections.abc import Iterable
from typing import Final

from ...models import Message

__all__ = ["TokenCounter", "count_tokens", "message_tokens"]

_NARROW: Final = 4  # characters a token
_WIDE: Final = (
    "\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff"  # Jamo, radicals to unified ideographs, Hangul
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"  # compatibility, full width, supplementary
)
_RUNS: Final = re.compile(f"([{_WIDE}]+)|[^{_WIDE}]+")


class TokenCounter:
    """Counts a text that comes in pieces.

    Attributes:
        tokens: the count so far.
    """

    __slots__ = ("_run", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._run = 0  # narrow characters of the last token, 0 if that is full

    def add(self, text: str, most: int = sys.maxsize) -> int:
        """Add as many characters of `text` as keep the count within `most`; return how many."""
        if text.isascii():
            return self._add_narrow(len(text), most)
        added = 0
        for run in _RUNS.finditer(text):
            length = run.end() - run.start()
            fits = self._add_wide(length, most) if run[1] else self._add_narrow(length, most)
            added += fits
            if fits < length:
                break
        return added

    def _add_wide(self, length: int, most: int) -> int:
        fits = min(length, most - self.tokens)
        if fits:
            self.tokens += fits
            self._run = 0
        return fits

    def _add_narrow(self, length: int, most: int) -> int:
        begun = 1 if self._run else 0
        fits = min(length, _NARROW * (most - self.tokens + begun) - self._run)
        end = self._run + fits
        self.tokens += -(-end // _NARROW) - begun
        self._run = end % _NARROW
        return fits


def count_tokens(text: str) -> int:
    """Count the tokens of a text, by the rule above.

    >>> count_tokens("Hello"), count_tokens("你好"), count_tokens("hi你there")
    (2, 2, 4)
    """
    counter = TokenCounter()
    counter.add(text)
    return counter.tokens


def message_tokens(messages: Iterable[Message]) -> int:
    """Count the tokens of the messages' contents, an empty content as 1: no message is free to store."""
    return sum(max(1, count_tokens(message.text)) for message in messages)
