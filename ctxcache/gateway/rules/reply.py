"""One reply while the engine writes: where the reply ends, and which text may be shown already.

Text that comes as `str` is cut and counted here; a `Piece` is passed on as it is, since its engine does that itself.
Such text is cut first at the token limit, then before the first stop string completed in the rest. Text that
may still become a stop string is held back until that is decided. The reply does not depend on how the engine cuts the
text into pieces. Each stop string has a Knuth-Morris-Pratt automaton, whose table is built only as far as a match has
come: linear time, and a stop string of a megabyte costs nothing until a match has come far.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...fold import read_tool_call
from ...models import Message, ToolCall, assistant
from ...tool_calls import merge_fragments, merge_objects
from .pieces import Piece, encode_delta
from .sizes import tool_call_tokens
from .tokens import TokenCounter, count_tokens

__all__ = ["Reply"]


class _Stop:
    """A stop string, and how much of the string the text ends with."""

    __slots__ = ("_fallback", "_text", "matched")

    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._fallback = [0]  # [i]: length of the longest proper prefix that the first i + 1 characters end with
        self.matched = 0

    def step(self, character: str) -> bool:
        """Add one character of the text; return whether the stop string is complete."""
        self.matched = self._next(self.matched, character)
        if self.matched == len(self._text):
            return True
        if self.matched > len(self._fallback):  # by one: a match grows by one a step
            self._fallback.append(self._next(self._fallback[-1], self._text[self.matched - 1]))
        return False

    def _next(self, matched: int, character: str) -> int:
        while matched and self._text[matched] != character:
            matched = self._fallback[matched - 1]
        return matched + 1 if self._text[matched] == character else 0

    def __len__(self) -> int:
        return len(self._text)


class Reply:
    """One reply of an answer.

    Attributes:
        finish_reason: the engine's, or `stop` (the engine ended, or a stop string came), `length` (no token left) or
            `tool_calls`; None until then.
    """

    def __init__(self, stops: Iterable[str], limit: int) -> None:
        """Begin a reply of at most `limit` tokens; a limit of 0 ends the reply at once."""
        self.finish_reason: str | None = None if limit > 0 else "length"
        self._limit: Final = limit
        self._stops: Final = [_Stop(stop) for stop in stops]
        self._written = TokenCounter()  # by the engine
        self._shown = TokenCounter() if self._stops else self._written
        self._parts: list[str] = []
        self._held: deque[str] = deque()
        self._held_length = 0
        self._reasoning: list[str] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._calls: list[list[dict[str, Any]]] = []  # the fragments of each piece
        self._calls_begun = 0
        self._counted = True  # whether `_shown` has counted all of the text

    @property
    def text(self) -> str:
        """The text shown so far; the whole reply once `finish_reason` is set."""
        return "".join(self._parts)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)

    @property
    def logprobs(self) -> dict[str, Any] | None:
        """The log probabilities so far, None if the engine told none."""
        return merge_objects(self._logprobs) if self._logprobs else None

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls so far, whole, in OpenAI's form; fields beyond that form are kept."""
        calls = [{**call, **read_tool_call(call).to_dict()} for call in merge_fragments(self._calls)]
        return [{name: value for name, value in call.items() if name != "index"} for call in calls]

    @property
    def message(self) -> Message:
        """The reply as a message of the conversation: text and tool calls, without the reasoning."""
        calls = self.tool_calls
        return assistant(self.text or None, calls) if calls else assistant(self.text)

    @property
    def tokens(self) -> int:
        """The number of tokens of text, reasoning and tool calls."""
        told = self._shown.tokens if self._counted else count_tokens(self.text + self.reasoning)
        return told + tool_call_tokens(self.tool_calls) if self._calls else told

    def take(self, piece: Piece) -> str | list[str | bytes]:
        """Take a piece of an engine that cuts and counts itself; return what may be shown now: a text or several parts.

        Raises:
            InvalidInputError: for a value that JSON cannot express.
        """
        if piece.text and not (
            piece.reasoning or piece.tool_calls or piece.logprobs or piece.finish_reason or self._held_length
        ):  # the hot path
            self._parts.append(piece.text)
            self._counted = False
            return piece.text
        shown: list[str | bytes] = []
        if self._held_length:
            shown.append(self._show(self._release(self._held_length)))
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
        if piece.text:
            self._parts.append(piece.text)
            self._counted = False
        if not (piece.reasoning or piece.tool_calls or piece.logprobs):
            return [*shown, piece.text] if piece.text else shown
        fragments = [self._indexed(call) for call in piece.tool_calls]
        shown.append(encode_delta(piece, fragments))
        if piece.reasoning:
            self._reasoning.append(piece.reasoning)
            self._counted = False
        if fragments:
            self._calls.append(fragments)
        if piece.logprobs:
            self._logprobs.append(piece.logprobs)
        return shown

    def _indexed(self, call: ToolCall | Mapping[str, Any]) -> dict[str, Any]:
        """Return a fragment of a tool call, with the index that names the call."""
        given = call.to_dict() if isinstance(call, ToolCall) else call
        fragment = {"index": self._calls_begun, **given}
        if isinstance(fragment["index"], int):
            self._calls_begun = max(self._calls_begun, fragment["index"] + 1)
        return fragment

    def feed(self, piece: str) -> str:
        """Take the engine's next piece; return the text that may be shown now, or ""."""
        if self.finish_reason or not piece:
            return ""
        fits = self._written.add(piece, self._limit)
        cut = fits < len(piece)
        shown = self._up_to_stop(piece[:fits]) if self._stops else piece[:fits]
        if cut and not self.finish_reason:
            self.finish_reason = "length"
            shown += self._release(self._held_length)
        return self._show(shown)

    def end(self) -> str:
        """End the reply with the engine's last piece taken; return the text that was held back."""
        if self.finish_reason:
            return ""
        self.finish_reason = "tool_calls" if self._calls else "stop"
        return self._show(self._release(self._held_length))

    def _show(self, text: str) -> str:
        if text:
            self._parts.append(text)
            if self._stops:
                self._shown.add(text)
        return text

    def _up_to_stop(self, text: str) -> str:
        """Hold `text`; return the held text in which no stop string can begin any more."""
        self._held.append(text)
        before = self._held_length
        self._held_length += len(text)
        for place, character in enumerate(text, start=before + 1):
            complete = [len(stop) for stop in self._stops if stop.step(character)]
            if complete:
                self.finish_reason = "stop"
                return self._release(place - max(complete))
        return self._release(self._held_length - max(stop.matched for stop in self._stops))

    def _release(self, count: int) -> str:
        """Take out the oldest `count` held characters."""
        self._held_length -= count
        parts = []
        while count:
            part = self._held.popleft()
            if len(part) > count:
                self._held.appendleft(part[count:])
            parts.append(part[:count])
            count -= len(parts[-1])
        return "".join(parts)
