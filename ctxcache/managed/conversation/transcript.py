"""`Transcript`: the messages of a conversation, from which its context is rebuilt. Pure.

The service cannot be asked for the content of a context, so a transcript keeps it: the initial messages and the turns,
each a question with the answer received. A transcript is bounded: beyond `keep_turns` the oldest turns are dropped, the
initial messages never.

A context cannot be created with an assistant's message as the last (vendor documentation). Such messages at the end of
a transcript are left out of the create, and sent in front of the next question: `split`.
"""

import attrs

from ...errors import InvalidInputError
from ...models import Message, assistant

__all__ = ["Transcript", "TranscriptTurn"]


@attrs.frozen
class TranscriptTurn:
    """One turn of a conversation.

    Attributes:
        question: the messages sent.
        answer: the text received; None if there was none (tool calls alone, or no answer).
        finished: whether the answer came to its end.
    """

    question: tuple[Message, ...] = attrs.field(repr=False)
    answer: str | None = attrs.field(repr=False)
    finished: bool = True


@attrs.frozen(kw_only=True)
class Transcript:
    """A conversation so far. Immutable: changes return a new transcript.

    Attributes:
        messages: the initial messages; never dropped.
        turns: the newest `keep_turns` turns, oldest first.
        keep_turns: how many turns are kept, from 1 up.

    Raises:
        InvalidInputError: all initial messages are the assistant's, so no context can begin with them; or `keep_turns`
            is out of its range.
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
        """Return a transcript with one more turn; an empty answer counts as none."""
        return attrs.evolve(self, turns=(*self.turns, TranscriptTurn(question, answer or None, finished)))

    def without_last(self) -> "Transcript":
        """Return a transcript without the last turn."""
        return attrs.evolve(self, turns=self.turns[:-1])

    @property
    def whole(self) -> tuple[Message, ...]:
        """The initial messages and the turns as messages; a turn without an answer is its question alone."""
        whole = list(self.messages)
        for turn in self.turns:
            whole += turn.question
            if turn.answer is not None:
                whole.append(assistant(turn.answer))
        return tuple(whole)

    def split(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """Return the messages of a create, and the messages to send in front of the next question."""
        whole = self.whole
        end = len(whole)
        while whole[end - 1].role == "assistant":  # the initial messages have another role somewhere
            end -= 1
        return whole[:end], whole[end:]
