"""`Conversation`: a session context that looks after itself.

What it promises is said in its class. How: `dialogue` keeps the turns in order and says what became of each,
`context` knows the context in use and when to rebuild it, `transcript` is what it is rebuilt from, `saved` the JSON.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Self, Unpack

from ...client.resources.chat import ChatParameters
from ...client.session import AsyncSession
from ...config import UNSET, Unset
from ...errors import CtxCacheError, InvalidInputError
from ...models import (
    ChatCompletion,
    Context,
    ContextRequest,
    Message,
    MessageLike,
    TruncationStrategy,
    Usage,
    read_messages,
)
from ...wire import PreparedChat
from ..costs import Cost, Prices
from ..expiry import DEFAULT_MARGIN
from ..keeper import ContextKeeper
from ..question import Question, read_question, refuse_own_options
from ..stream import ManagedStream
from .dialogue import Dialogue, StreamedTurn
from .saved import SavedConversation
from .transcript import Transcript, TranscriptTurn

__all__ = ["Conversation"]


class Conversation:
    """A conversation on a context of mode `session`, which is created on first use and rebuilt when it is gone.

    Turns are made one at a time, first come first served: who asks while another turn is under way waits for it. A task
    that asks while it holds a stream of this conversation open would wait for itself, and gets a `ContextBusyError`.

    The conversation keeps a transcript, since the service cannot be asked for it: the initial messages, and of the
    turns the newest `keep_turns`, older ones are dropped. From it the context is rebuilt when it has expired, which is
    known beforehand by its idle timer, or believed when the service says so; then the turn is sent once on the new one.
    A context cannot be created with an answer as its last message, so on a rebuilt one the last answer travels in front
    of the next question. Answers without text (tool calls alone) cannot be told again, and are left out.

    A turn whose outcome is unknown is not repeated. That is one that was sent and of which no text came: the call ended
    in an `OutcomeUnknownError`, or in a `StreamInterruptedError` before any text; or its task was cancelled, or its
    stream closed or forgotten before any text. Its question is then `doubtful`, and further questions raise a
    `SessionError` until `resync()` has said whether it counts.

    A stream that breaks off after text came, or is left by its reader, leaves a turn marked unfinished, with what was
    received. What the service kept of it is unknown, so the context is rebuilt with that text before the next turn;
    `resync()` drops it instead. All other errors prove that the turn did not run, and change nothing.

    Nothing needs to be closed: a context ends by its ttl alone. The session's hooks are told (`on_create`,
    `on_recreate`, `on_warning`), the logger `ctxcache` as well: ids and reasons, never content.

    Args:
        session: the session to make its calls; it belongs to the caller, who closes it.
        model: the model's id.
        messages: what the conversation begins with, never dropped: at least one that is not the assistant's, since the
            service creates no context without.
        ttl: idle time after which the service forgets a context: seconds in [3600, 604800] or a timedelta; the
            service's default is 86400.
        truncation_strategy: what the service is to do when the history outgrows the window.
        keep_turns: how many turns to keep, from 1 up; no more than fit the model's window, or the service refuses to
            rebuild the context.
        margin: seconds before its expiry from which a context is not used any more; at most a tenth of its ttl counts.
        is_gone: which errors say that the context is gone, and the turn did not run; default: `ContextGoneError`. What
            it raises is logged, and counts as no.
        clock: the wall clock, Unix seconds.

    Raises:
        InvalidInputError: for an argument out of its range.
    """

    def __init__(
        self,
        session: AsyncSession,
        *,
        model: str,
        messages: Iterable[MessageLike] = (),
        ttl: int | timedelta | Unset = UNSET,
        truncation_strategy: TruncationStrategy | Mapping[str, Any] | Unset = UNSET,
        keep_turns: int = 200,
        margin: float = DEFAULT_MARGIN,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        transcript = Transcript(messages=_initial(messages), keep_turns=keep_turns)
        asked = ContextRequest(
            model=model,
            messages=transcript.split()[0],
            mode="session",
            ttl=ttl,
            truncation_strategy=truncation_strategy,
        )
        self._keeper = ContextKeeper(session, asked, margin=margin, is_gone=is_gone, clock=clock)
        self._session = session
        self._dialogue = Dialogue(self._keeper, transcript)

    # --- turns

    async def ask(self, question: Question, **options: Unpack[ChatParameters]) -> ChatCompletion:
        """Make one turn and wait for the whole answer.

        Args:
            question: a string is a user message, a `Message` or a mapping is one message, a list is sent as it is.
            **options: see `ChatParameters`. `n` above 1, `repeatable` and `serialize` are refused: there is one answer
                a turn, a turn cannot be repeated, and the conversation itself keeps the turns in order.

        Raises:
            InvalidInputError: for an argument out of its range; nothing was sent.
            OutcomeUnknownError: the question was sent and no answer came; see `resync`.
            SessionError: the outcome of the turn before is unknown; see `resync`.
            ContextBusyError: this task itself holds a stream of this conversation open.
            CtxCacheError: any other of the family: the turn did not run.
        """
        messages = read_question(question)
        prepared = self._prepare(messages, options)
        turn = await self._dialogue.take()
        try:
            answer = await self._dialogue.send(messages, partial(self._session.chat.send, prepared))
            self._dialogue.answered(answer)
            return answer
        finally:
            turn.release()

    def stream(self, question: Question, **options: Unpack[ChatParameters]) -> ManagedStream:
        """Make one turn and stream the answer: `async with` the result, or iterate it straight.

        Nothing is sent before that, and then the turn is held until the stream is at its end, is closed or forgotten.
        It asks for its usage unless `stream_options` say otherwise.

        Args:
            question, **options: as in `ask`.

        Raises:
            InvalidInputError: for an argument out of its range. All other errors of `ask` come from entering or
                iterating, with those of a stream.
        """
        messages = read_question(question)
        own: ChatParameters = {"stream_options": {"include_usage": True}, **options}
        prepared = self._prepare(messages, own, stream=True)
        return ManagedStream(StreamedTurn(self._dialogue, messages, partial(self._session.chat.open_stream, prepared)))

    def _prepare(self, question: tuple[Message, ...], options: ChatParameters, *, stream: bool = False) -> PreparedChat:
        """Check and encode a turn: it has one answer, is made once, and waits for its turn."""
        refuse_own_options(options, "serialize")
        if options.get("repeatable", False) is not False:
            allowed = "False (a turn sent twice may be stored twice)"
            raise InvalidInputError.of("repeatable", options["repeatable"], allowed)
        own: ChatParameters = {"serialize": True, **options}
        prepared = self._session.chat.prepare(model=self._keeper.asked.model, messages=question, stream=stream, **own)
        if prepared.replies != 1:
            raise InvalidInputError.of("n", prepared.replies, "1 (a conversation continues from one answer)")
        return prepared

    async def warm(self) -> Context:
        """Create the context now, or again if it is gone, and return it; no question is asked.

        Raises:
            SessionError: the outcome of the turn before is unknown; see `resync`.
            CtxCacheError: any of the family, from creating it.
        """
        turn = await self._dialogue.take()
        try:
            return await self._dialogue.context.ready(self._dialogue.transcript)
        finally:
            turn.release()

    async def resync(self, *, keep: bool = False) -> Context:
        """Rebuild the context from the transcript, and so end what is in doubt; return the new one.

        It waits for its turn like a question. If it fails, nothing has changed: call it again.

        Args:
            keep: what to do with the turn in doubt. False: it never was; the question may be asked again. True: its
                question goes into the transcript, as a turn without an answer. Where no turn is doubtful but the last
                one of the transcript is unfinished, that is dropped, or kept with what was received of it.

        Raises:
            CtxCacheError: any of the family, from creating it.
        """
        return await self._dialogue.resync(keep=keep)

    # --- what is known

    @property
    def transcript(self) -> tuple[TranscriptTurn, ...]:
        """The turns kept, oldest first."""
        return self._dialogue.transcript.turns

    @property
    def messages(self) -> tuple[Message, ...]:
        """The initial messages and the turns kept, as messages."""
        return self._dialogue.transcript.whole

    @property
    def doubtful(self) -> tuple[Message, ...] | None:
        """The question of a turn whose outcome is unknown, until `resync()`; None if there is none."""
        return self._dialogue.doubtful

    @property
    def context(self) -> Context | None:
        """The context in use, or the last one; None before the first. For a loaded one only what was saved is known."""
        return self._dialogue.context.context

    @property
    def expires_at(self) -> float | None:
        """When that context is gone if it is not used before, Unix seconds; None before the first."""
        return self._dialogue.context.expires_at

    @property
    def usage(self) -> Usage:
        """What the creates and turns of this object were counted at, in sum."""
        return self._keeper.ledger.usage

    def cost(self, prices: Prices) -> Cost:
        """Return what the creates and turns of this object cost, storage included, and what they would without one."""
        return self._keeper.ledger.cost(prices, self._keeper.clock())

    def __repr__(self) -> str:
        context = self._dialogue.context.context
        where = "no context yet" if context is None else context.id
        return f"<Conversation {self._keeper.asked.model} {where} turns={len(self.transcript)}>"

    # --- saved and loaded

    def save(self) -> str:
        """Return all that `load` needs to go on, as JSON: messages and transcript included, the API key not.

        It may be called at any time. A turn under way, its question sent and its outcome not known yet, is doubtful in
        what is saved. What was used so far (`usage`, `cost`) is not saved.
        """
        asked: Any = self._keeper.asked  # its fields are in their one form by now
        return SavedConversation(
            model=asked.model,
            transcript=self._dialogue.transcript,
            ttl=asked.ttl,
            truncation_strategy=asked.truncation_strategy,
            margin=self._keeper.margin,
            context=self._dialogue.context.save(),
            doubtful=self._dialogue.doubtful or self._dialogue.asked,
        ).dumps()

    @classmethod
    def load(
        cls,
        session: AsyncSession,
        text: str,
        *,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a conversation of what `save` gave.

        It goes on with its context if that is not expired, and otherwise, or with a session of another base URL or
        key, rebuilds it before the next turn. `usage` and `cost` begin anew.

        Args:
            session: the session to make its calls.
            text: what `save` gave.
            is_gone, clock: as for a new one.

        Raises:
            InvalidInputError: the text is something else; `field` says where.
        """
        saved = SavedConversation.loads(text)
        loaded = cls(
            session,
            model=saved.model,
            messages=saved.transcript.messages,
            ttl=saved.ttl,
            truncation_strategy=saved.truncation_strategy,
            keep_turns=saved.transcript.keep_turns,
            margin=saved.margin,
            is_gone=is_gone,
            clock=clock,
        )
        loaded._dialogue.transcript = saved.transcript
        loaded._dialogue.doubtful = saved.doubtful
        if saved.context is not None:
            loaded._dialogue.context.load(saved.context, saved.transcript)
        return loaded


def _initial(messages: Iterable[MessageLike]) -> tuple[Message, ...]:
    if isinstance(messages, list | tuple) and not messages:
        return ()  # the transcript says why that cannot be
    return read_messages(messages)
