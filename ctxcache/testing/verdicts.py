"""What a client did wrong, by a record of its calls. Pure.

=========================  =============================================================================================
finding                    seen in
=========================  =============================================================================================
retry_after_ignored        a refused call came again before the pause that the refusal asked for had passed
turn_repeated              a turn was stored, its answer lost, and the call came again: the turn is stored twice
truncated_stream_accepted  an answer was cut off, and taken for a whole one: it is among `answers`, or the next question
                           on the session came without a repeat
context_created_per_call   contexts with the same messages, each used once at most: nothing is ever cached
retry_storm                the same call more than 5 times within a second, or more than 10 times in all
no_read_timeout            the client was still waiting when a stalled answer was cut off
=========================  =============================================================================================
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import attrs

from ..gateway.faults.record import RecordedCall
from .books import doubled_turns, repeats

__all__ = ["FINDINGS", "Finding", "cached_share", "find"]

_EARLY: Final = 0.05  # seconds that a pause may be shorter: clocks differ
_STORM: Final = 5
_STORM_SECONDS: Final = 1.0
_MOST_ATTEMPTS: Final = 10
_SAME_SESSIONS: Final = 3  # sessions begin with the same messages for every user


@attrs.frozen
class Finding:
    """Something that a client did wrong.

    Attributes:
        name: the kind, one of the table above.
        calls: the numbers of the calls that show it.
        message: what happened, in one line.
    """

    name: str
    calls: tuple[int, ...]
    message: str

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.calls))
        return f"{self.name}: {self.message} ({'call' if len(self.calls) == 1 else 'calls'} {numbers})"


def find(calls: Sequence[RecordedCall], answers: Collection[str] = ()) -> list[Finding]:
    """Return all findings.

    Args:
        calls: the record, in the order in which the calls came.
        answers: the texts that the client took for whole answers.
    """
    found = [finding for look in _LOOKS for finding in look(calls)]
    return [*found, *_accepted(calls, answers)]


def cached_share(calls: Sequence[RecordedCall]) -> float | None:
    """Return which share of the prompt tokens of all chats was cached; None without a chat that told."""
    told = [call.usage for call in calls if call.endpoint == "chat" and call.usage is not None]
    prompt = sum(usage.prompt_tokens for usage in told)
    return sum(usage.cached_tokens for usage in told) / prompt if prompt else None


def _early(calls: Sequence[RecordedCall]) -> Iterator[Finding]:
    for call, other in repeats(calls):
        if call.refused and call.retry_after and call.ended is not None:
            waited = other.began - call.ended
            if waited < call.retry_after - _EARLY:
                told = f"came again after {waited:.1f} s, told to wait {call.retry_after:g} s"
                yield Finding("retry_after_ignored", (call.number, other.number), told)


def _repeated(calls: Sequence[RecordedCall]) -> Iterator[Finding]:
    for call, other in doubled_turns(calls):
        yield Finding("turn_repeated", (call.number, other.number), "a turn that was stored came again, and ran again")


def _accepted(calls: Sequence[RecordedCall], answers: Collection[str]) -> Iterator[Finding]:
    repeated = {call.number for call, _ in repeats(calls)}
    for place, call in enumerate(calls):
        if "truncate" not in call.faults or call.whole or call.status != 200 or call.endpoint != "chat":
            continue
        later = [other for other in calls[place + 1 :] if other.context_id == call.context_id]
        if any(text and call.text.startswith(text) for text in answers):
            yield Finding("truncated_stream_accepted", (call.number,), "a part of the answer was taken for the whole")
        elif later and call.mode == "session" and call.number not in repeated:
            told = "the session went on after an answer that was cut off"
            yield Finding("truncated_stream_accepted", (call.number, later[0].number), told)


def _contexts_per_call(calls: Sequence[RecordedCall]) -> Iterator[Finding]:
    made = defaultdict(list)
    used: dict[str | None, int] = defaultdict(int)
    gone = {call.context_id for call in calls if call.refused and call.code == "NotFound.context_id"}
    for call in calls:
        if call.endpoint == "create" and call.whole and call.request is not None:
            made[call.request.model, call.mode, call.messages].append(call)
        elif call.endpoint == "chat":
            used[call.context_id] += 1
    for (_, mode, _), creates in made.items():
        needed = [call for call in creates if call.context_id not in gone]
        most = _SAME_SESSIONS if mode == "session" else 2
        if len(needed) >= most and max(used[call.context_id] for call in needed) <= 1:
            numbers = tuple(call.number for call in needed)
            yield Finding("context_created_per_call", numbers, f"{len(needed)} contexts with the same messages")


def _storms(calls: Sequence[RecordedCall]) -> Iterator[Finding]:
    following = {call.number: other for call, other in repeats(calls)}
    seen: set[int] = set()
    for call in calls:
        chain = [call]
        while call.number not in seen and (after := following.get(chain[-1].number)) is not None:
            chain.append(after)
        seen.update(each.number for each in chain)
        bursts = zip(chain, chain[_STORM:], strict=False)
        if len(chain) > _MOST_ATTEMPTS or any(last.began - first.began < _STORM_SECONDS for first, last in bursts):
            seconds = chain[-1].began - chain[0].began
            told = f"the same call {len(chain)} times in {seconds:.1f} s"
            yield Finding("retry_storm", tuple(each.number for each in chain), told)


def _hanging(calls: Sequence[RecordedCall]) -> Iterator[Finding]:
    for call in calls:
        if call.outlasted:
            yield Finding("no_read_timeout", (call.number,), "the client waited as long as the answer stalled")


_LOOKS: Final[tuple[Callable[[Sequence[RecordedCall]], Iterator[Finding]], ...]] = (
    _early,
    _repeated,
    _contexts_per_call,
    _storms,
    _hanging,
)
FINDINGS: Final = (
    "retry_after_ignored",
    "turn_repeated",
    "truncated_stream_accepted",
    "context_created_per_call",
    "retry_storm",
    "no_read_timeout",
)
