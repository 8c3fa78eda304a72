"""`Dialogue`: one turn after the other on a context that may be lost, and the outcome of each turn.

A turn has one of four outcomes:

============  =====================================================  ==================================================
answered      the answer came to its end                             recorded in the transcript
refused       the service, or the client before sending, refused;    nothing changes; if the service reported the
              the turn did not run                                   context gone, the turn is sent once more on a new
                                                                     context
interrupted   the answer broke off after some text, or the reader    recorded as unfinished, with the text received; the
              left the stream before a finish reason came            context is rebuilt before the next turn, since the
                                                                     service may have kept more or less
doubtful      the turn was sent, and no text came: an error that     not repeated; the caller decides whether the turn
              proves nothing, or the caller was cancelled            counts: by `resync`, or once and for all by
                                                                     `in_doubt`
============  =====================================================  ==================================================

Which errors prove that a turn did not run is said in `ctxcache.errors`: all but `OutcomeUnknownError` and
`StreamInterruptedError`.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...client.stream import ChatStream
from ...errors import CtxCacheError, OutcomeUnknownError, StreamInterruptedError, TurnInDoubtError
from ...log import log, one_line
from ...models import ChatCompletion, Context, Message
from ..deadline import Deadline
from ..keeper import ContextKeeper
from ..live import LiveContext
from .autosave import Autosave
from .saved import InDoubt, SavedConversation
from .session_context import SessionContext
from .transcript import Transcript
from .turn_lock import TurnLock

__all__ = ["Dialogue", "StreamedTurn"]

T = TypeVar("T")
_PROVE_NOTHING: Final = (OutcomeUnknownError, StreamInterruptedError)
_ADVICE: Final[dict[InDoubt, str]] = {
    "raise": "the turn is not repeated: call the conversation's resync()",
    "drop": "the turn is not repeated: the next turn is made on a context without it",
    "keep": "the turn is not repeated: the next turn is made on a context with its question, unanswered",
}
_IN_DOUBT: Final = (
    "the outcome of the last turn is unknown: call the conversation's resync() before the next question, or make the "
    "conversation with in_doubt='drop' or 'keep'"
)


class Dialogue:
    """The state of one conversation.

    Attributes:
        keeper: creates the contexts, and decides which errors say that one is gone.
        context: the context in use.
        transcript: the turns so far.
        in_doubt: what becomes of a turn whose outcome is unknown.
        question_in_flight: the question of the present turn, while it may have been sent and has no known outcome.
        doubtful: the question of a turn whose outcome is unknown, until the caller decides.
        autosave: writes each change to a file; or None.
    """

    def __init__(self, keeper: ContextKeeper, transcript: Transcript, in_doubt: InDoubt) -> None:
        self.keeper = keeper
        self.context = SessionContext(keeper)
        self.transcript = transcript
        self.in_doubt = in_doubt
        self.question_in_flight: tuple[Message, ...] | None = None
        self.doubtful: tuple[Message, ...] | None = None
        self.autosave: Autosave | None = None
        self._doubted: CtxCacheError | None = None  # why there is a doubt
        self._advice = ""  # for the error of the turn that ended in doubt
        self._sent_at = 0.0
        self._lock = TurnLock()
        self._closing: set[asyncio.Task[None]] = set()

    # --- the order of turns

    async def take(self, deadline: Deadline | None = None, *, in_doubt: bool = False) -> TurnLock:
        """Wait for the turn; the caller releases the lock.

        Args:
            deadline: limits the wait.
            in_doubt: whether to take the turn even if the outcome of the last one is unknown.

        Raises:
            ContextBusyError: the running task holds the turn itself, and would wait for ever.
            TurnInDoubtError: the outcome of the last turn is unknown.
            APITimeoutError: the time is up.
        """
        taking = self._lock.take()
        await (taking if deadline is None else deadline.wait(taking))
        if self.doubtful is not None and not in_doubt:
            self._lock.release()
            live, cause = self.context.live, self._doubted
            context_id = None if live is None else live.context.id
            raise TurnInDoubtError(_IN_DOUBT, cause=cause, context_id=context_id) from cause
        return self._lock

    # --- sending

    async def send(
        self,
        question: tuple[Message, ...],
        call: Callable[..., Awaitable[T]],
        deadline: Deadline | None,
        *,
        again: bool = True,
    ) -> T:
        """Send a question on a context that may be used; if that is gone, once more on a new one.

        Args:
            question: the messages.
            call: sends the question, given the context's id, the messages that go in front, and the seconds waited.
            deadline: limits the waits for a context and for the disk.
            again: whether the question may be sent once more.

        Raises:
            CtxCacheError: any of the family.
        """
        self._advice = ""
        live = self.context.usable or await self._ready(deadline)
        try:
            return await self._send(live, question, call, deadline)
        except CtxCacheError:
            if self.context.lost != "gone" or not again:
                raise
        live = await self._ready(deadline)
        return await self._send(live, question, call, deadline)

    async def _ready(self, deadline: Deadline | None) -> LiveContext:
        ready = self.context.ready(self.transcript)
        return await (ready if deadline is None else deadline.wait(ready))

    async def _send(
        self,
        live: LiveContext,
        question: tuple[Message, ...],
        call: Callable[..., Awaitable[T]],
        deadline: Deadline | None,
    ) -> T:
        if self.autosave is not None:
            # Before sending: if the process ends during the turn, the file must say that the turn is in doubt.
            self.autosave.begin(self.saved(question))
            await self.autosave.written(deadline)
        self.question_in_flight, self._sent_at = question, self.keeper.clock()
        try:
            waited = 0.0 if deadline is None else deadline.waited
            return await call(live.context.id, before=self.context.in_front_of(question), waited=waited)
        except BaseException as error:
            self.failed(error)
            raise

    # --- the state as a value

    def saved(self, question_in_flight: tuple[Message, ...] | None) -> SavedConversation:
        """Return everything another process needs to go on."""
        template = self.keeper.template
        return SavedConversation(
            model=template.model,
            transcript=self.transcript,
            ttl=template.ttl,
            truncation_strategy=template.truncation_strategy,
            margin=self.keeper.margin,
            in_doubt=self.in_doubt,
            context=self.context.save(),
            doubtful=self.doubtful or question_in_flight,
        )

    def changed(self) -> None:
        """Begin to save the state at the end of a turn."""
        if self.autosave is not None:
            self.autosave.begin(self.saved(None))

    async def settled(self, deadline: Deadline | None = None) -> None:
        """Wait until the state is saved, or cannot be, or the deadline has come."""
        if self.autosave is not None:
            await self.autosave.written(deadline)

    # --- outcomes

    def answered(self, answer: ChatCompletion, error: BaseException | None = None, *, finished: bool = True) -> None:
        """Record the answer to the turn in flight.

        Args:
            answer: the answer, or the part received.
            error: what interrupted the answer, if that was an error.
            finished: whether the answer came to its end.
        """
        question, self.question_in_flight = self.question_in_flight, None
        if question is None:
            return
        finished = finished and not _is_blank(answer)
        self.transcript = self.transcript.added(question, answer.text, answer.tool_calls, finished=finished)
        self.context.used(answer.usage, self._sent_at)
        if not finished:
            gone = isinstance(error, CtxCacheError) and self.keeper.is_gone(error)
            self.context.lost = "gone" if gone else "resync"

    def failed(self, error: BaseException | None) -> None:
        """Note that the turn in flight ended without any text.

        Args:
            error: why; None if its stream was closed or forgotten.
        """
        question, self.question_in_flight = self.question_in_flight, None
        if question is None:
            return
        if isinstance(error, CtxCacheError) and self.keeper.is_gone(error):
            self.context.lost = "gone"
        elif not isinstance(error, CtxCacheError) or isinstance(error, _PROVE_NOTHING):
            self._doubted = copy.copy(error) if isinstance(error, CtxCacheError) else None  # without the traceback
            self.doubt(question)

    def doubt(self, question: tuple[Message, ...]) -> None:
        """Note a turn whose outcome is unknown, and do with it as `in_doubt` says."""
        self._advice = _ADVICE[self.in_doubt]
        if self.in_doubt == "raise":
            self.doubtful = question
        else:
            self.context.lost = "resync"
        if self.in_doubt == "keep":
            self.transcript = self.transcript.added(question, None, finished=False)
        name = "?" if self.context.live is None else one_line(self.context.live.context.id)
        log.warning("the outcome of a turn on the context %s is unknown; %s", name, self._advice)

    def advise(self, error: BaseException | None) -> None:
        """Add a note to an error that leaves a turn in doubt, just before the error reaches the caller."""
        if self._advice and isinstance(error, _PROVE_NOTHING):
            error.add_note(self._advice)

    def close_later(self, stream: ChatStream, lock: TurnLock) -> None:
        """Close a stream that was left, which frees its context for the next call; then release the lock."""

        async def close() -> None:
            try:
                await stream.aclose()
            finally:
                lock.release()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def resync(self, *, keep: bool) -> Context:
        """Create a context from the transcript; see `Conversation.resync`. On failure nothing changes."""
        lock = await self.take(in_doubt=True)
        try:
            transcript = self.transcript
            if self.doubtful is not None:
                if keep:
                    transcript = transcript.added(self.doubtful, None, finished=False)
            elif not keep and transcript.turns and not transcript.turns[-1].finished:
                transcript = transcript.without_last()
            live = await self.context.create(transcript, "resync")
            self.transcript, self.doubtful, self._doubted = transcript, None, None
        finally:
            lock.release()
            self.changed()
        await self.settled()
        return live.context


class StreamedTurn:
    """The `StreamOwner` of a turn's stream.

    Args:
        dialogue: the conversation.
        question: the messages of the turn.
        stream: opens the stream, given the context's id, the messages that go in front, and the seconds waited.
        total: seconds from the first use to the end of the stream, or None.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        question: tuple[Message, ...],
        stream: Callable[..., Awaitable[ChatStream]],
        total: float | None,
    ) -> None:
        self._dialogue = dialogue
        self._total = total
        self._deadline: Deadline | None = None
        self._question = question
        self._stream = stream
        self._lock: TurnLock | None = None
        self._attempts = 0

    async def begin(self) -> ChatStream:
        """Wait for the turn, and send the question."""
        if self._total is not None:
            self._deadline = Deadline(self._total)
        self._lock = await self._dialogue.take(self._deadline)
        return await self._dialogue.send(self._question, self._open, self._deadline)

    async def _open(self, context_id: str, *, before: tuple[Message, ...], waited: float) -> ChatStream:
        self._attempts += 1
        return await self._stream(context_id, before=before, waited=waited)

    async def again(self, error: CtxCacheError) -> ChatStream | None:
        """Send the question once more if the context is gone and nothing of the answer came."""
        if self._attempts > 1 or not self._dialogue.keeper.is_gone(error):
            return None
        self._dialogue.failed(error)
        return await self._dialogue.send(self._question, self._open, self._deadline, again=False)

    def hold_here(self) -> None:
        """Make the reading task the holder of the turn: a question from it would wait for itself."""
        if self._lock is not None:
            self._lock.hold_here()

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Record the outcome, and let the next turn begin."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if stream is None:
            self._dialogue.failed(error)
        else:
            answer = stream.partial()
            finished = stream.done or (_is_complete(answer) and not isinstance(error, CtxCacheError))
            if finished or answer.text:
                self._dialogue.answered(answer, error, finished=finished)
            else:
                self._dialogue.failed(error)
        self._dialogue.advise(error)
        self._dialogue.changed()
        if stream is None or stream.done:
            lock.release()
        else:
            lock.disown()
            self._dialogue.close_later(stream, lock)

    async def settled(self) -> None:
        """Wait until the turn is saved, or cannot be."""
        await self._dialogue.settled(self._deadline)


def _is_complete(answer: ChatCompletion) -> bool:
    """Whether every reply has come to its end: a reader may leave a stream before the end marker."""
    return bool(answer.choices) and all(choice.finish_reason is not None for choice in answer.choices)


def _is_blank(answer: ChatCompletion) -> bool:
    """Whether an answer has nothing in it, not even an end: no text, no tool call, no finish reason."""
    for choice in answer.choices:
        if choice.finish_reason or choice.message.tool_calls or choice.message.content:
            return False
    return True
