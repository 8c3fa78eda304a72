"""The built-in engine, which answers by a script. No language model, and every answer says so."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain, cycle, islice
from typing import Final

import attrs

from ... import checks
from ...keywords import suggest_fields
from .protocol import Prompt

__all__ = ["ScriptedEngine"]

_PIECE: Final = re.compile(r"\s*\S{1,8}|\s+")
_FILLER: Final = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")
_SHOWN: Final = 200  # characters of the question repeated in the answer


def _speed(value: float | None) -> float | None:
    return None if value is None else checks.number("pieces_per_second", value, 0)


def _length(value: int | None) -> int | None:
    return None if value is None else checks.whole("length", value, 0)


def _delay(value: float) -> float:
    return checks.number("first_token_delay", value, 0)


@suggest_fields
@attrs.frozen(kw_only=True)
class ScriptedEngine:
    """Answers by a script: the same question on the same context gives the same answer. No language model.

    An answer names the script, the size of the context and the question: "This is a scripted answer, not a language
    model. The context holds 2 messages (14 tokens); you said: hello".

    Attributes:
        pieces_per_second: the speed of each reply; None or 0 is as fast as possible.
        length: the number of pieces of each reply (a piece is a word of up to 8 characters): the script is cut, or
            continued with "one two three …"; None keeps the script's length. No reply exceeds the context window.
        first_token_delay: seconds before the first piece.
        clock, sleep: for tests: monotonic seconds, and a wait of so many.

    Raises:
        InvalidInputError: for a number out of range.
    """

    pieces_per_second: float | None = attrs.field(default=None, converter=_speed)
    length: int | None = attrs.field(default=None, converter=_length)
    first_token_delay: float = attrs.field(default=0.0, converter=_delay)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, repr=False)
    sleep: Callable[[float], Awaitable[object]] = attrs.field(default=asyncio.sleep, repr=False)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write the reply."""
        if self.first_token_delay:
            await self.sleep(self.first_token_delay)
        start = self.clock()
        for number, piece in enumerate(self._pieces(prompt)):
            # By the time since the start: a late wake-up does not delay the rest.
            if self.pieces_per_second and (wait := start + number / self.pieces_per_second - self.clock()) > 0:
                await self.sleep(wait)
            yield piece

    def _pieces(self, prompt: Prompt) -> Iterator[str]:
        script = _PIECE.findall(_script(prompt))
        return iter(script) if self.length is None else islice(chain(script, cycle(_FILLER)), self.length)


def _script(prompt: Prompt) -> str:
    said = prompt.question[-1].text
    if len(said) > _SHOWN:
        said = f"{said[:_SHOWN]}…"
    held = f"{_count(len(prompt.context), 'message')} ({_count(prompt.context_tokens, 'token')})"
    which = f"[{prompt.index + 1}] " if prompt.index else ""
    return f"{which}This is a scripted answer, not a language model. The context holds {held}; you said: {said}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
