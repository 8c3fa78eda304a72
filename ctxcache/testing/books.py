"""The turns of session contexts, by a record of calls: none may be lost, none stored twice. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from ..gateway.faults.record import RecordedCall

__all__ = ["doubled_turns", "lost_turns", "repeats"]


def _same_chat(call: RecordedCall, other: RecordedCall) -> bool:
    return call.endpoint == other.endpoint == "chat" and call.messages == other.messages


def repeats(calls: Sequence[RecordedCall]) -> Iterator[tuple[RecordedCall, RecordedCall]]:
    """Yield each call that was not answered to the end, with the next one that asks for the same.

    The same: the same messages, of a chat on the same context; sent after the first had ended.
    """
    for place, call in enumerate(calls):
        if call.whole or not call.messages:
            continue
        for other in calls[place + 1 :]:
            same = other.endpoint == call.endpoint and other.messages == call.messages
            if call.endpoint == "chat":
                same = same and other.context_id == call.context_id
            if same and call.ended is not None and other.began >= call.ended:
                yield call, other
                break


def doubled_turns(calls: Sequence[RecordedCall]) -> list[tuple[RecordedCall, RecordedCall]]:
    """Return the turns that were stored twice: the first one's answer was not sent to the end, and the repeat ran."""
    return [(call, other) for call, other in repeats(calls) if call.stored and other.stored and call.endpoint == "chat"]


def lost_turns(calls: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Return the chats on sessions that were not stored, and whose question came in no later turn or context."""
    return [
        call
        for place, call in enumerate(calls)
        if call.endpoint == "chat"
        and call.mode != "common_prefix"
        and call.ended is not None
        and call.messages
        and not call.stored
        and not any(_holds(other, call) for other in calls[place + 1 :])
    ]


def _holds(later: RecordedCall, call: RecordedCall) -> bool:
    """Whether a later call stored the question of a call."""
    if not later.stored:
        return False
    return _same_chat(later, call) or (later.endpoint == "create" and _within(call.messages, later.messages))


def _within(question: Iterable[object], messages: Sequence[object]) -> bool:
    return all(message in messages for message in question)
