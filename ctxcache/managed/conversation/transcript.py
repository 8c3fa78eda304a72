"""What a conversation keeps of itself: its transcript. Pure.

The service cannot be asked what a context holds, so whoever wants to build a context anew must know it. A transcript is
the initial messages and the turns, each a question with what was received of its answer. It is bounded: beyond
`keep_turns` the oldest turns are dropped, the initial messages never.

A context cannot be created with messages that end with one of the assistant's (vendor documentation). Those that a
transcript ends with are therefore left out of the create, and travel in front of the next question: `split`.
"""

import attrs

from ...errors import InvalidInputError
from ...models import Message, assistant

__all__ = ["Transcript", "TranscriptTurn"]


@attrs.frozen
class TranscriptTurn:
    """One turn of a conversation.

    Attributes:
        question: the messages that were sent.
        answer: the text that was received; None where there was none (an answer of tool calls alone, or no answer).
        finished: whether the answer came to its end.
    """

    question: tuple[Message, ...] = attrs.field(repr=False)
    answer: str | None = attrs.field(repr=False)
    finished: bool = True


@attrs.frozen(kw_only=True)
class Transcript:
    """A conversation so far. A value: what changes it returns another.

    Attributes:
        messages: the initial ones; never dropped.
        turns: oldest first, the newest `keep_turns` of them.
        keep_turns: how many turns are kept, from 1 up.

    Raises:
        InvalidInputError: none of the initial messages is other than the assistant's, so no context can begin with
            them; or `keep_turns` is out of its range.
    """

    messages: tuple[Message, ...] = attrs.field(repr=False)
    turns: tuple[TranscriptTurn, ...] = attrs.field(default=(), repr=False)
    keep_turns: int = 200

    def __attrs_post_init__(self) -> None:
        kept = self.keep_turns
        if not isinstance(kept, int) or isinstance(kept, bool) or kept < 1:
            raise InvalidInputError.of("keep_turns", kept, "a whole number from 1 up")
        if all(message.role == "assistant" for message in self.messages):
            allowed = "at least one message that is not the assistant's (the service creates no context without one)"
            raise InvalidInputError.of("messages", [message.role for message in self.messages], allowed)
        if len(self.turns) > kept:
            object.__setattr__(self, "turns", self.turns[-kept:])

    def added(self, question: tuple[Message, ...], answer: str | None, *, finished: bool = True) -> "Transcript":
        """Return it with one more turn; an empty answer counts as none."""
        return attrs.evolve(self, turns=(*self.turns, TranscriptTurn(question, answer or None, finished)))

    def without_last(self) -> "Transcript":
        """Return it without its last turn."""
        return attrs.evolve(self, turns=self.turns[:-1])

    @property
    def whole(self) -> tuple[Message, ...]:
        """The initial messages and the turns, as messages; a turn without an answer's text is its question alone."""
        whole = list(self.messages)
        for turn in self.turns:
            whole += turn.question
            if turn.answer is not None:
                whole.append(assistant(turn.answer))
        return tuple(whole)

    def split(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """Return what a context is to be created with, and what must then travel with the next question."""
        whole = self.whole
        end = len(whole)
        while whole[end - 1].role == "assistant":  # the first message of another role stops it at the latest
            end -= 1
        return whole[:end], whole[end:]
