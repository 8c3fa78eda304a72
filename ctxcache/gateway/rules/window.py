"""The context window: which messages a session context drops, and when.

A window holds the initial messages (never dropped), the history, the new messages and the reply. Messages are dropped
whole, oldest first, and the results of tools with their call. The size is the smaller of the model's window and
`max_window_tokens`.

===========================  =========================================================================================
strategy                     when the window overflows
===========================  =========================================================================================
last_history_tokens          as few messages as possible are dropped, so that neither the history exceeds that many
                             tokens nor the window its size. The remaining messages stay cached.
rolling_tokens, true         the oldest block is dropped and the rest computed anew: that turn has no cached tokens. A
                             block is `rolling_window_tokens`, by default a quarter of the window, or more if needed.
rolling_tokens, false        nothing is dropped: the reply ends with `length` at the end of the window. Once the
                             question itself does not fit, replies are empty with `length`, and no turn is stored.
none (common_prefix)         there is no history; the reply ends with `length` at the end of the window.
===========================  =========================================================================================

In every case a question is refused that leaves no room for a reply beside the initial messages alone. The strategies
are the vendor documentation's; the sizes of blocks and the dropping of whole messages are this gateway's choice.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

import attrs

from ...config import UNSET
from ...models import Message, TruncationStrategy
from .refusals import out_of_context
from .sizes import SizedMessage, total_memory, total_tokens

__all__ = ["DEFAULT_STRATEGY", "Plan", "Window"]

DEFAULT_STRATEGY: Final = TruncationStrategy(type="rolling_tokens", rolling_tokens=True)  # as in the API reference
_DEFAULT_HISTORY: Final = 4096  # vendor documentation
_BLOCKS: Final = 4  # blocks of a window, by default


@attrs.frozen
class Plan:
    """How one call fits the window.

    Attributes:
        dropped: the number of history messages left out.
        kept: the tokens of context left in.
        room: the most tokens of a reply.
    """

    dropped: int
    kept: int
    room: int


class Window:
    """The messages of one context.

    Attributes:
        size: the size of the window, in tokens.
        strategy: the strategy with every default filled in; None for a common prefix.
        initial: the messages of the create.
        initial_tokens: the tokens of `initial`.
        history: the messages of completed turns not yet dropped.
        history_tokens: the tokens of `history`.
        memory: the bytes of memory that all messages take.
        stored: how many messages of turns were ever stored, those dropped since included.
    """

    __slots__ = (
        "_messages",
        "history",
        "history_tokens",
        "initial",
        "initial_tokens",
        "memory",
        "size",
        "stored",
        "strategy",
    )

    def __init__(
        self,
        size: int,
        strategy: TruncationStrategy | None,
        messages: Sequence[SizedMessage],
        history: Sequence[SizedMessage] = (),
        stored: int | None = None,
    ) -> None:
        """Begin with the messages of the create, and of the turns completed since."""
        self.size = size
        self.strategy = strategy
        if strategy is not None:
            self.strategy = strategy = _filled_in(strategy)
            if strategy.max_window_tokens is not UNSET:
                self.size = min(size, strategy.max_window_tokens)
        self.initial: Final = tuple([sized.message for sized in messages])
        self.initial_tokens: Final = total_tokens(messages)
        self.history: Final = list(history)
        self._messages: Final = [sized.message for sized in history]  # a chat copies these, and looks at none
        self.history_tokens = total_tokens(history)
        self.memory = total_memory(messages) + total_memory(history)
        self.stored = len(history) if stored is None else stored
        self._check_room(self.initial_tokens)

    @property
    def tokens(self) -> int:
        """The tokens of all messages held."""
        return self.initial_tokens + self.history_tokens

    def messages(self, dropped: int = 0) -> tuple[Message, ...]:
        """Return the messages held, without the `dropped` oldest of the history."""
        return (*self.initial, *self._messages[dropped:])

    def plan(self, new: int) -> Plan:
        """Fit in a question of `new` tokens, without changing the window.

        Raises:
            APIStatusError: `OutofContextError` for a question that leaves no room, whatever is dropped.
        """
        self._check_room(self.initial_tokens + new)
        excess = self.tokens + new + 1 - self.size  # one token of reply at least
        if self._stops_at_end:
            return Plan(0, self.tokens, max(0, 1 - excess))
        dropped, tokens = self._oldest(self._to_drop(excess, self.history_tokens))
        return Plan(dropped, self.tokens - tokens, self.size - self.initial_tokens - new)

    def dropped_by(self, turn: Sequence[SizedMessage]) -> int:
        """Return how many of the oldest messages go when a completed turn is stored, without changing the window.

        No less is dropped than was planned: the turn is the question and at least one token.
        """
        tokens = total_tokens(turn)
        if self._history_limit is not None:
            excess = self.history_tokens + tokens - self._history_limit
        else:
            excess = self._to_drop(self.tokens + tokens - self.size, self.history_tokens)
        return self._oldest(excess, turn)[0]

    def store(self, turn: Sequence[SizedMessage]) -> bool:
        """Store a completed turn and drop the excess; return whether the window rolled."""
        dropped = self.dropped_by(turn)
        self._add(turn)
        self.stored += len(turn)
        self._drop(dropped)
        return dropped > 0 and self._history_limit is None

    def catch_up(self, messages: Sequence[SizedMessage], first: int, stored: int) -> None:
        """Take over turns that were stored elsewhere.

        Args:
            messages: the messages stored since those of the history, as far as they are not dropped.
            first: the number of the oldest message that is not dropped, among all that were ever stored.
            stored: how many were ever stored.
        """
        self._add(messages)
        self.stored = stored
        self._drop(len(self.history) - (stored - first))

    def _add(self, messages: Sequence[SizedMessage]) -> None:
        self.history.extend(messages)
        self._messages.extend([sized.message for sized in messages])
        self.history_tokens += total_tokens(messages)
        self.memory += total_memory(messages)

    @property
    def _stops_at_end(self) -> bool:
        return self.strategy is None or self.strategy.rolling_tokens is False

    @property
    def _history_limit(self) -> int | None:
        limit = self.strategy.last_history_tokens if self.strategy else UNSET
        return None if limit is UNSET else min(limit, self.size - self.initial_tokens)

    def _check_room(self, tokens: int) -> None:
        if tokens >= self.size:
            raise out_of_context(tokens, self.size)

    def _to_drop(self, excess: int, most: int) -> int:
        """Return the number of tokens to drop for an excess; at most `most` may go."""
        if excess <= 0 or self._history_limit is not None:
            return excess
        block = self.strategy.rolling_window_tokens if self.strategy else UNSET
        return min(most, max(excess, self.size // _BLOCKS if block is UNSET else block))

    def _oldest(self, tokens: int, turn: Sequence[SizedMessage] = ()) -> tuple[int, int]:
        """Return how many of the oldest messages have at least `tokens` tokens, and how many tokens exactly.

        The messages are those of the history and of a turn to come.
        """
        count = total = 0
        for sized in chain(self.history, turn):
            # The results of tools go with their call, without which a model refuses them.
            if total >= tokens and not (count and sized.message.role == "tool"):
                break
            total += sized.tokens
            count += 1
        return count, total

    def _drop(self, count: int) -> None:
        self.history_tokens -= total_tokens(self.history[:count])
        self.memory -= total_memory(self.history[:count])
        del self.history[:count], self._messages[:count]


def _filled_in(strategy: TruncationStrategy) -> TruncationStrategy:
    """Return the strategy as a create's answer shows it: the service's defaults in, fields of other types out."""
    if strategy.type == "rolling_tokens":
        rolling = strategy.rolling_tokens is not False
        return attrs.evolve(strategy, rolling_tokens=rolling, last_history_tokens=UNSET)
    kept = _DEFAULT_HISTORY if strategy.last_history_tokens is UNSET else strategy.last_history_tokens
    return attrs.evolve(strategy, last_history_tokens=kept, rolling_tokens=UNSET, rolling_window_tokens=UNSET)
