"""One turn after the other on a context that may be lost, and what is known of each turn afterwards.

A turn ends in one of four ways:

============  =====================================================  ==================================================
answered      the answer came to its end                             it is in the transcript
refused       the service, or the client before it sent anything,    nothing has changed; where the service says that
              said no: it did not run                                the context is gone, it is lost, and the turn sent
                                                                     once more on a new one
interrupted   the answer broke off after text had come, or its       it is in the transcript with what came, marked
              reader left                                            unfinished; what the service kept is unknown, so
                                                                     the context is rebuilt before the next turn
doubtful      it was sent, and nothing of an answer came: an error   it is not repeated; the caller says, by `resync`,
              that proves nothing, or the caller was cancelled       whether it counts
============  =====================================================  ==================================================

Which errors prove that a turn did not run, `ctxcache.errors` says: all but the `OutcomeUnknownError`s and the
`StreamInterruptedError`s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...client.queues import ContextQueue, ContextQueues
from ...client.stream import ChatStream
from ...errors import ContextBusyError, CtxCacheError, OutcomeUnknownError, SessionError, StreamInterruptedError
from ...models import ChatCompletion, Context, Message
from ..keeper import ContextKeeper
from .session_context import SessionContext
from .transcript import Transcript

__all__ = ["Dialogue", "StreamedTurn"]

T = TypeVar("T")
log: Final = logging.getLogger("ctxcache")

_PROVE_NOTHING: Final = (OutcomeUnknownError, StreamInterruptedError)
_ADVICE: Final = "; the turn is not repeated: call the conversation's resync()"
_LETTING_GO: Final = 20  # turns of the event loop; a `text()` that was forgotten lets go of its stream in four
_IN_DOUBT: Final = "the outcome of the last turn is unknown: call the conversation's resync() before the next question"


class Dialogue:
    """The state of one conversation.

    Attributes:
        contexts: creates its contexts, and says which errors mean that one is gone.
        context: the context it is held on.
        transcript: the turns so far.
        asked: the question of the turn under way, from when it may have been sent until its outcome is known.
        doubtful: the question of a turn whose outcome is unknown.
    """

    def __init__(self, contexts: ContextKeeper, transcript: Transcript) -> None:
        self.context = SessionContext(contexts)
        self.transcript = transcript
        self.asked: tuple[Message, ...] | None = None
        self.doubtful: tuple[Message, ...] | None = None
        self.contexts = contexts
        self._sent_at = 0.0
        self._line = ContextQueues()

    # --- whose turn it is

    async def take(self, *, in_doubt: bool = False) -> ContextQueue:
        """Wait for a turn; the caller releases it.

        Args:
            in_doubt: whether it may be taken while the outcome of the one before is unknown.

        Raises:
            ContextBusyError: the calling task holds it itself, and would wait for ever.
            SessionError: the outcome of the turn before is unknown.
        """
        turn = await self._in_line()
        if self.doubtful is not None and not in_doubt:
            turn.release()
            raise SessionError(_IN_DOUBT)
        return turn

    async def _in_line(self) -> ContextQueue:
        for _ in range(_LETTING_GO):
            try:
                return await self._line.take("")
            except ContextBusyError:
                await asyncio.sleep(0)  # it may hold it by a stream that it has just forgotten
        raise ContextBusyError(
            "this task itself holds a stream of this conversation open: read it to its end or close it before the next "
            "question"
        )

    # --- sending

    async def send(self, question: tuple[Message, ...], call: Callable[..., Awaitable[T]], *, again: bool = True) -> T:
        """Send a question on a context that may be used; if that turns out to be gone, once more on a new one.

        Args:
            question: its messages.
            call: sends the question, given the context's id and the messages that go in front.
            again: whether it may be sent once more.

        Raises:
            CtxCacheError: any of the family.
        """
        context = await self.context.ready(self.transcript)
        try:
            return await self._send(context, question, call)
        except CtxCacheError:
            if self.context.lost is None or not again:
                raise
        context = await self.context.ready(self.transcript)
        return await self._send(context, question, call)

    async def _send(self, context: Context, question: tuple[Message, ...], call: Callable[..., Awaitable[T]]) -> T:
        self.asked, self._sent_at = question, self.contexts.clock()
        try:
            return await call(context.id, before=self.context.carried)
        except BaseException as error:
            self.failed(error)
            raise

    # --- outcomes

    def answered(self, answer: ChatCompletion) -> None:
        """Note that the turn under way was answered."""
        if self.asked is not None:
            self.transcript = self.transcript.added(self.asked, answer.text)
            self.context.used(answer.usage, self._sent_at)
            self.asked = None

    def interrupted(self, partial: ChatCompletion, error: BaseException | None) -> None:
        """Note that the answer under way broke off after this."""
        if self.asked is not None:
            self.transcript = self.transcript.added(self.asked, partial.text, finished=False)
            self.context.used(partial.usage, self._sent_at)
            gone = isinstance(error, CtxCacheError) and self.contexts.is_gone(error)
            self.context.lost = "gone" if gone else "resync"
            self.asked = None

    def failed(self, error: BaseException | None) -> None:
        """Note that the turn under way ended without any text.

        Args:
            error: why; None if its stream was closed or forgotten.
        """
        question, self.asked = self.asked, None
        unknown = not isinstance(error, CtxCacheError) or isinstance(error, _PROVE_NOTHING)
        if question is not None and isinstance(error, CtxCacheError) and self.contexts.is_gone(error):
            self.context.lost = "gone"
        elif question is not None and unknown:
            self.doubtful = question
            known = self.context.context
            log.warning("the outcome of a turn on the context %s is unknown: resync() is needed", known and known.id)
        if self.doubtful is not None and isinstance(error, _PROVE_NOTHING) and _ADVICE not in error.message:
            error.message += _ADVICE
            error.args = (error.message,)

    async def resync(self, *, keep: bool) -> Context:
        """Create a context from what is known; see `Conversation.resync`. If that fails, nothing has changed."""
        turn = await self.take(in_doubt=True)
        try:
            transcript = self.transcript
            if self.doubtful is not None:
                if keep:
                    transcript = transcript.added(self.doubtful, None, finished=False)
            elif not keep and transcript.turns and not transcript.turns[-1].finished:
                transcript = transcript.without_last()
            context = await self.context.create(transcript, "resync")
            self.transcript, self.doubtful = transcript, None
            return context
        finally:
            turn.release()


class StreamedTurn:
    """The owner of a turn's stream; see `streams.StreamOwner`.

    Args:
        dialogue: whose turn it is.
        question: its messages.
        stream: opens the stream, given the context's id and the messages that go in front.
    """

    def __init__(
        self, dialogue: Dialogue, question: tuple[Message, ...], stream: Callable[..., Awaitable[ChatStream]]
    ) -> None:
        self._dialogue = dialogue
        self._question = question
        self._stream = stream
        self._turn: ContextQueue | None = None
        self._sent = 0

    async def begin(self) -> ChatStream:
        """Wait for the turn, and send the question."""
        self._turn = await self._dialogue.take()
        return await self._dialogue.send(self._question, self._open)

    async def _open(self, context_id: str, *, before: tuple[Message, ...]) -> ChatStream:
        self._sent += 1
        return await self._stream(context_id, before=before)

    async def again(self, error: CtxCacheError) -> ChatStream | None:
        """Send the question once more if the context is gone and nothing of the answer came."""
        if self._sent > 1 or not self._dialogue.contexts.is_gone(error):
            return None
        self._dialogue.failed(error)
        return await self._dialogue.send(self._question, self._open, again=False)

    def hold_here(self) -> None:
        """Note that the running task is now the one that reads: it would wait for itself if it asked meanwhile."""
        if self._turn is not None:
            self._turn.hold_here()

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Note the outcome, and let the next turn begin."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if stream is not None and stream.done:
            self._dialogue.answered(stream.completion())
        elif stream is not None and (partial := stream.partial()).text:
            self._dialogue.interrupted(partial, error)
        else:
            self._dialogue.failed(error)
        turn.release()
