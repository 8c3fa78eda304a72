"""`Transcript`: the messages of a conversation, from which its context is rebuilt. Pure.

The service cannot be asked for the content of a context, so a transcript keeps it: the initial messages and the turns,
each a question with the answer received. A transcript is bounded: beyond `keep_turns` the oldest turns are dropped, the
initial messages never.

A context cannot be created with an assistant's message as the last (vendor documentation). Such messages at the end of
a transcript are left out of the create, and sent in front of the next question: `split`.

Services refuse a tool call without a result right behind, and a result without a call right before. So a turn that
brings results is kept together with the turn that asked for them; and where the results of a call never came, because
the next question was another, the call is left out: `answered_part`.
"""

from collections.abc import Sequence
from itertools import takewhile

import attrs

from ... import checks
from ...errors import InvalidInputError
from ...models import Message, ToolCall, assistant

__all__ = ["Transcript", "TranscriptTurn", "answered_part"]


@attrs.frozen
class TranscriptTurn:
    """One turn of a conversation.

    Attributes:
        question: the messages sent.
        answer: the text received; None if there was none (tool calls alone, or no answer).
        finished: whether the answer came to its end.
        tool_calls: the calls that the answer asks for; () of an unfinished answer, whose calls may be cut.
    """

    question: tuple[Message, ...] = attrs.field(repr=False)
    answer: str | None = attrs.field(repr=False)
    finished: bool = True
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), repr=False)


def _checked_keep_turns(value: object) -> int:
    return checks.whole("keep_turns", value, 1)


@attrs.frozen(kw_only=True)
class Transcript:
    """A conversation so far. Immutable: changes return a new transcript.

    Attributes:
        messages: the initial messages; never dropped.
        turns: the newest `keep_turns` turns, oldest first; more where the oldest of these brings tool results.
        keep_turns: how many turns are kept, from 1 up.

    Raises:
        InvalidInputError: all initial messages are the assistant's, so no context can begin with them; or `keep_turns`
            is out of its range.
    """

    messages: tuple[Message, ...] = attrs.field(repr=False)
    turns: tuple[TranscriptTurn, ...] = attrs.field(default=(), repr=False)
    keep_turns: int = attrs.field(default=200, converter=_checked_keep_turns)

    def __attrs_post_init__(self) -> None:
        if all(message.role == "assistant" for message in self.messages):
            allowed = "at least one message that is not the assistant's (the service creates no context without one)"
            raise InvalidInputError.of("messages", [message.role for message in self.messages], allowed)
        first = len(self.turns) - self.keep_turns
        while first > 0 and self.turns[first].question[0].role == "tool":
            first -= 1
        if first > 0:
            object.__setattr__(self, "turns", self.turns[first:])

    def added(
        self,
        question: tuple[Message, ...],
        answer: str | None,
        tool_calls: tuple[ToolCall, ...] = (),
        *,
        finished: bool = True,
    ) -> "Transcript":
        """Return a transcript with one more turn; an empty answer counts as none."""
        turn = TranscriptTurn(question, answer or None, finished, tool_calls if finished else ())
        # Not by attrs.evolve, which takes three times as long, once a turn.
        return Transcript(messages=self.messages, turns=(*self.turns, turn), keep_turns=self.keep_turns)

    def without_last(self) -> "Transcript":
        """Return a transcript without the last turn."""
        return attrs.evolve(self, turns=self.turns[:-1])

    @property
    def whole(self) -> tuple[Message, ...]:
        """The initial messages and the turns as messages, as a rebuilt context is to hold them.

        A turn without an answer is the question alone. Tool calls that the next turn does not answer are left out, and
        so are results without a call.
        """
        whole = list(self.messages)
        for turn in self.turns:
            results = _results(turn.question)
            asked = _calls(whole[-1]).keys()
            whole[-1:] = answered_part(whole[-1], turn.question)
            whole += [result for result in results if _call_id(result) in asked]
            whole += turn.question[len(results) :]
            if turn.answer is not None or turn.tool_calls:
                whole.append(assistant(turn.answer, turn.tool_calls or None))
        return tuple(whole)

    def split(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """Return the messages of a create, and the messages to send in front of the next question."""
        whole = self.whole
        end = len(whole)
        while whole[end - 1].role == "assistant":  # the initial messages have another role somewhere
            end -= 1
        return whole[:end], whole[end:]


def answered_part(last: Message, question: Sequence[Message]) -> tuple[Message, ...]:
    """Return the message before a question without the tool calls that the question does not answer.

    Returns:
        the message, or () where nothing of the message is left.
    """
    calls = _calls(last)
    given = {_call_id(result) for result in _results(question)}
    if calls.keys() <= given:
        return (last,)
    extra = {name: value for name, value in last.extra.items() if name != "tool_calls"}
    if answered := [call for id_, call in calls.items() if id_ in given]:
        extra["tool_calls"] = answered
    return (Message(last.role, last.content, extra),) if last.content or answered else ()


def _calls(message: Message) -> dict[str, object]:
    """Return the tool calls of an assistant's message, by id."""
    calls = message.extra.get("tool_calls") if message.role == "assistant" else None
    return {_text(call.get("id")): call for call in calls if isinstance(call, dict)} if isinstance(calls, list) else {}


def _results(question: Sequence[Message]) -> list[Message]:
    """Return the tool messages at the beginning of a question."""
    return list(takewhile(lambda message: message.role == "tool", question))


def _call_id(result: Message) -> str:
    return _text(result.extra.get("tool_call_id"))


def _text(id_: object) -> str:
    return id_ if isinstance(id_, str) else ""  # servers that leave out the id of a call do so in the result, too
