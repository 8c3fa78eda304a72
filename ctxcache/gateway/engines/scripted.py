"""The built-in engine. It answers by a script: it is no language model, and says so."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain, cycle, islice
from typing import Any, Final

import attrs

from ...errors import InvalidInputError
from .protocol import Prompt

__all__ = ["ScriptedEngine"]

_PIECE: Final = re.compile(r"\s*\S{1,8}|\s+")
_FILLER: Final = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")
_SHOWN: Final = 200  # characters of the question that the answer repeats


def _number(*, none: bool = False, whole: bool = False) -> Callable[[Any, Any, Any], None]:
    kinds = int if whole else int | float
    allowed = f"a {'whole ' if whole else ''}number from 0 up{', or None' if none else ''}"

    def check(_: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value is None and none:
            return
        if not isinstance(value, kinds) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise InvalidInputError.of(attribute.name, value, allowed)

    return check


@attrs.frozen(kw_only=True)
class ScriptedEngine:
    """Answers by a script: the same question on the same context gives the same answer. No language model.

    The answer says so, how much the context holds, and what was said: "This is a scripted answer, not a language model.
    The context holds 2 messages (14 tokens); you said: hello".

    Attributes:
        pieces_per_second: the speed of each reply; None or 0 is as fast as possible.
        length: pieces of each reply (a piece is a word of up to 8 characters): the script's text is cut, or counted on
            with "one two three …"; None is as long as it is. A reply ends with the context window all the same.
        first_token_delay: seconds before the first piece.
        clock, sleep: for tests; monotonic seconds, and how to wait some.

    Raises:
        InvalidInputError: for a number out of its range.
    """

    pieces_per_second: float | None = attrs.field(default=None, validator=_number(none=True))
    length: int | None = attrs.field(default=None, validator=_number(none=True, whole=True))
    first_token_delay: float = attrs.field(default=0.0, validator=_number())
    clock: Callable[[], float] = attrs.field(default=time.monotonic, repr=False)
    sleep: Callable[[float], Awaitable[object]] = attrs.field(default=asyncio.sleep, repr=False)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write the script's reply."""
        if self.first_token_delay:
            await self.sleep(self.first_token_delay)
        start = self.clock()
        for number, piece in enumerate(self._pieces(prompt)):
            # By the time since the start: a late wake-up does not slow the rest down.
            if self.pieces_per_second and (wait := start + number / self.pieces_per_second - self.clock()) > 0:
                await self.sleep(wait)
            yield piece

    def _pieces(self, prompt: Prompt) -> Iterator[str]:
        script = _PIECE.findall(_script(prompt))
        return iter(script) if self.length is None else islice(chain(script, cycle(_FILLER)), self.length)


def _script(prompt: Prompt) -> str:
    said = prompt.question[-1].content
    if len(said) > _SHOWN:
        said = f"{said[:_SHOWN]}…"
    held = f"{_count(len(prompt.context), 'message')} ({_count(prompt.context_tokens, 'token')})"
    which = f"[{prompt.index + 1}] " if prompt.index else ""
    return f"{which}This is a scripted answer, not a language model. The context holds {held}; you said: {said}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
