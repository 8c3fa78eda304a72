"""`Conversation`: a session context that looks after itself.

`dialogue` keeps the turns in order and records their outcomes, `session_context` holds the context and rebuilds it,
`transcript` is what it is rebuilt from, `saved` the JSON of a saved conversation.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self

from ...client.resources.parameters import ChatParameters, hidden_defaults
from ...client.session import AsyncSession
from ...config import UNSET, Unset
from ...errors import CtxCacheError, InvalidInputError
from ...keywords import suggest_keywords
from ...log import one_line
from ...models import (
    ChatCompletion,
    Context,
    ContextRequest,
    Message,
    MessageLike,
    TruncationStrategy,
    TruncationStrategyDict,
    Usage,
    read_messages,
)
from ...wire import PreparedChat
from ..calls import ManagedCalls
from ..costs import Cost, Prices
from ..deadline import Deadline
from ..keeper import ContextKeeper
from ..live import DEFAULT_MARGIN
from ..question import Question, read_question, refuse_own_options
from ..stream import ManagedStream
from .autosave import Autosave, check_path, read_file
from .dialogue import Dialogue, StreamedTurn
from .saved import SavedConversation, check_in_doubt
from .transcript import Transcript, TranscriptTurn

__all__ = ["Conversation"]


class Conversation(ManagedCalls):
    """A conversation on a context of mode `session`, created on first use and rebuilt when the service has lost it.

    Turns are made one at a time, first come, first served: a question asked during another turn waits. A task that asks
    while it holds a stream of this conversation open would wait for itself, and gets a `ContextBusyError`.

    The conversation keeps a transcript, since the service cannot be asked for one: the initial messages, and the newest
    `keep_turns` turns. From it the context is rebuilt shortly before its TTL ends, or when the service reports it gone;
    then the turn is sent once on the new context. A context cannot be created with an answer as its last message, so
    the last answer is sent in front of the next question. A create whose caller was cancelled serves the next turn.

    Tool calls and results are part of the transcript. The results are the next question: a list of `tool` messages.
    A rebuilt context has no call without results, and no results without their call.

    A turn with unknown outcome is never repeated: the question was sent and no text came, because the call ended in an
    `OutcomeUnknownError` or, before any text, in a `StreamInterruptedError`, or because its task was cancelled or its
    stream closed or forgotten. The question is then `doubtful`, and further questions raise a `TurnInDoubtError` until
    `resync()` decides whether the turn counts; or `in_doubt` decides once and for all.

    A stream that breaks off after some text is recorded as an unfinished turn, and so is one that its reader leaves
    before a finish reason came. The service may have kept more or less, so the context is rebuilt with the text
    received before the next turn; `resync()` drops that turn instead. All other errors prove that the turn did not run,
    and change nothing.

    Nothing needs to be closed: a context ends by its TTL alone. The session's hooks (`on_create`, `on_recreate`,
    `on_warning`) and the logger `ctxcache` get ids and reasons, never content.

    Args:
        session: makes the calls; the caller closes it.
        model: the model's id.
        messages: the beginning of the conversation, always kept: at least one message that is not the assistant's,
            since the service creates no context without.
        ttl: idle time after which the service drops a context: seconds in [3600, 604800] or a timedelta; the service's
            default is 86400.
        truncation_strategy: what the service does when the history outgrows the model's window.
        keep_turns: how many turns to keep, from 1 up; more than fit the model's window cannot be rebuilt. A turn that
            brings tool results is kept together with the turn that asked for them.
        in_doubt: what becomes of a turn with unknown outcome, whose own error is raised in any case. `raise`: further
            questions raise a `TurnInDoubtError`. `drop`: the next turn is made on a context rebuilt without that turn.
            `keep`: on a context rebuilt with its question, unanswered.
        margin: seconds before the end of a context from which it is no longer used; at most a tenth of the ttl.
        is_gone: which errors say that the context is gone, and that the turn did not run; default:
            `ContextGoneError`. If it raises, that is logged and counts as no.
        clock: Unix seconds.
        chat_defaults: parameters of every turn that does not give its own, in addition to the session's.
        autosave: a new file, readable by its owner only, that is replaced at the beginning and the end of every turn;
            `load` goes on from there. `ask` and streams end when the file is written; a disk that hangs is waited for
            no longer than 5 s, and `Timeouts.total`. A write that fails never fails a turn: the logger and `on_warning`
            are told. None: call `save` yourself.

    Raises:
        InvalidInputError: an argument is out of range.
    """

    @suggest_keywords
    def __init__(
        self,
        session: AsyncSession,
        *,
        model: str,
        messages: Iterable[MessageLike] = (),
        ttl: int | timedelta | Unset | None = None,
        truncation_strategy: TruncationStrategy | TruncationStrategyDict | Mapping[str, Any] | Unset | None = None,
        keep_turns: int = 200,
        in_doubt: Literal["raise", "drop", "keep"] = "raise",
        margin: float = DEFAULT_MARGIN,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
        chat_defaults: ChatParameters | None = None,
        autosave: str | os.PathLike[str] | None = None,
    ) -> None:
        chat_defaults = hidden_defaults(chat_defaults)
        transcript = Transcript(messages=_initial(messages), keep_turns=keep_turns)
        template = ContextRequest(
            model=model,
            messages=transcript.split()[0],
            mode="session",
            ttl=ttl,
            truncation_strategy=truncation_strategy,
        )
        self._keeper = ContextKeeper(session, template, margin=margin, is_gone=is_gone, clock=clock)
        super().__init__(session, chat_defaults)
        if chat_defaults:
            _refuse(chat_defaults)
            self._prepare(None, {})  # checks
        self._dialogue = Dialogue(self._keeper, transcript, check_in_doubt(in_doubt))
        if autosave is not None:
            self._dialogue.autosave = Autosave(check_path(autosave, new=True), self._keeper.warn_unsaved)

    # --- turns

    async def _ask(self, question: Question, options: ChatParameters) -> ChatCompletion:
        messages = read_question(question)
        prepared = self._prepare(messages, options)
        total = prepared.timeouts.total
        deadline = None if total is None else Deadline(total)
        turn = await self._dialogue.take(deadline)
        failure: CtxCacheError | None = None
        try:
            answer = await self._dialogue.send(messages, partial(self._session.chat.send, prepared), deadline)
            self._dialogue.answered(answer)
        except CtxCacheError as error:
            self._dialogue.advise(error)
            failure = error
        finally:
            turn.release()
            self._dialogue.changed()
        if self._dialogue.autosave is not None:
            await self._dialogue.settled(deadline)
        if failure is not None:
            raise failure
        return answer

    def _stream(self, question: Question, options: ChatParameters) -> ManagedStream:
        messages = read_question(question)
        prepared = self._prepare(messages, options, stream=True)
        open_stream = partial(self._session.chat.open_stream, prepared)
        return ManagedStream(StreamedTurn(self._dialogue, messages, open_stream, prepared.timeouts.total))

    def _prepare(
        self, question: tuple[Message, ...] | None, options: ChatParameters, *, stream: bool = False
    ) -> PreparedChat:
        """Check and encode a turn, which has one answer and is never sent twice."""
        _refuse(options)
        own: ChatParameters = {**options, "serialize": True, "repeatable": False}  # also where a default says otherwise
        prepared = self._session.chat.prepare(
            model=self._keeper.template.model, messages=question, stream=stream, **own
        )
        if prepared.replies != 1:
            raise InvalidInputError.of("n", prepared.replies, "1 (a conversation continues from one answer)")
        return prepared

    async def warm(self) -> Context:
        """Create the context now, unless there is one, and return it; no question is asked.

        Raises:
            TurnInDoubtError: the outcome of the last turn is unknown; see `resync`.
            CtxCacheError: the create failed.
        """
        turn = await self._dialogue.take()
        try:
            live = await self._dialogue.context.ready(self._dialogue.transcript)
        finally:
            turn.release()
            self._dialogue.changed()
        await self._dialogue.settled()
        return live.context

    @suggest_keywords
    async def resync(self, *, keep: bool = False) -> Context:
        """Settle a turn in doubt by rebuilding the context from the transcript; return the new context.

        `resync` waits in line like a question. On failure nothing changes: call it again.

        Args:
            keep: what becomes of the turn in doubt. False: the turn is dropped, and the question may be asked again.
                True: the question is recorded as a turn without an answer. If no turn is doubtful but the last turn is
                unfinished, that turn is dropped, or kept with the text received, if any.

        Raises:
            CtxCacheError: the create failed.
        """
        return await self._dialogue.resync(keep=keep)

    # --- state

    @property
    def model(self) -> str:
        """The model's id."""
        return self._keeper.template.model

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
        """The question of a turn with unknown outcome, until `resync()`; else, or where `in_doubt` decides, None."""
        return self._dialogue.doubtful

    @property
    def context(self) -> Context | None:
        """The context in use, or the last one; None before the first. After `load` only id, ttl and model are known."""
        live = self._dialogue.context.live
        return None if live is None else live.context

    @property
    def expires_at(self) -> float | None:
        """When that context will be gone if not used before, Unix seconds; None before the first."""
        live = self._dialogue.context.live
        return None if live is None else live.expires_at

    @property
    def usage(self) -> Usage:
        """Total usage of creates and turns of this object."""
        return self._keeper.ledger.usage

    def cost(self, prices: Prices) -> Cost:
        """Return the cost so far, storage included, and the cost of the same turns without a context."""
        return self._keeper.ledger.cost(prices, self._keeper.clock())

    def __repr__(self) -> str:
        if not hasattr(self, "_dialogue"):
            return "<Conversation that was not made>"
        context = self.context
        where = "no context yet" if context is None else one_line(context.id)
        return f"<Conversation {self._keeper.template.model} {where} turns={len(self.transcript)}>"

    # --- saved and loaded

    def save(self) -> str:
        """Return the conversation as JSON for `load`: messages and transcript included, the API key not.

        May be called at any time; with `autosave` there is no need. The question of a turn in flight is saved as
        doubtful. `usage`, `cost` and `chat_defaults` are not saved.
        """
        return self._dialogue.saved(self._dialogue.question_in_flight).dumps()

    @classmethod
    @suggest_keywords
    def load(
        cls,
        session: AsyncSession,
        text: str | os.PathLike[str],
        *,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
        chat_defaults: ChatParameters | None = None,
        autosave: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Make a conversation from the JSON of `save`, or from the file of `autosave`.

        The saved context is used again, unless it has expired or the session has another base URL or key; then the
        context is rebuilt before the next turn. `usage` and `cost` start at zero.

        Args:
            session: makes the calls.
            text: the JSON of `save`, or the `Path` of a file that holds it, which is read at once.
            is_gone, clock, chat_defaults: as for a new conversation.
            autosave: the file to save to from now on, the same one for instance; a file that exists is replaced.

        Raises:
            InvalidInputError: the text is not a saved conversation (`field` says where), or the file cannot be read.
        """
        chat_defaults = hidden_defaults(chat_defaults)  # tracebacks may show local variables
        path = None if autosave is None else check_path(autosave, new=False)
        saved = SavedConversation.loads(read_file(text) if isinstance(text, os.PathLike) else text)
        loaded = cls(
            session,
            model=saved.model,
            messages=saved.transcript.messages,
            ttl=saved.ttl,
            truncation_strategy=saved.truncation_strategy,
            keep_turns=saved.transcript.keep_turns,
            in_doubt=saved.in_doubt,
            margin=saved.margin,
            is_gone=is_gone,
            clock=clock,
            chat_defaults=chat_defaults,
        )
        loaded._dialogue.transcript = saved.transcript
        if saved.context is not None:
            loaded._dialogue.context.load(saved.context, saved.transcript)
        if saved.doubtful is not None:
            loaded._dialogue.doubt(saved.doubtful)
        if path is not None:
            loaded._dialogue.autosave = Autosave(path, loaded._keeper.warn_unsaved)
        return loaded


def _refuse(options: ChatParameters) -> None:
    """Refuse options that are not for a turn of a conversation."""
    refuse_own_options(options, "serialize")
    if options.get("repeatable", UNSET) not in (False, UNSET):
        allowed = "False (a turn sent twice may be stored twice)"
        raise InvalidInputError.of("repeatable", options["repeatable"], allowed)


def _initial(messages: Iterable[MessageLike]) -> tuple[Message, ...]:
    if isinstance(messages, list | tuple) and not messages:
        return ()  # the transcript says why that cannot be
    return read_messages(messages)
