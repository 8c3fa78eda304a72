"""The contexts of a gateway: the rules of the table, and a state that keeps what they decide.

A create is kept before its answer is sent, and a turn before the end of its answer. Until then the session is busy,
even if the client leaves: a turn that is being kept is completed, so that memory and state agree.

Where several gateways share a state, the table holds copies. A session is claimed for each call, which brings the turns
of other gateways into the copy. A common prefix never changes: a copy serves until its timer ends, and is asked for
again then, since others may have used the prefix.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from ..errors import APIStatusError
from ..models import ChatRequest, Usage
from .calls import Calls
from .rules.clients import Client
from .rules.records import ContextRecord
from .rules.refusals import unreachable
from .rules.served import AcceptedChat, ServedContext
from .rules.sizes import SizedMessage, total_memory
from .rules.table import ContextTable
from .state import SharedState, State

__all__ = ["Contexts"]

_log: Final = logging.getLogger("ctxcache.gateway")


class Contexts:
    """The contexts of one gateway.

    Args:
        table: the contexts in memory, and their rules; creates contexts.
        state: keeps contexts beyond the process; None: memory alone.
        copies: the bytes of memory for the copies of a shared state's contexts; beyond, those used longest ago go.
    """

    def __init__(self, table: ContextTable, state: State | None = None, copies: int = 0) -> None:
        self.table: Final = table
        self._state: Final = state
        self._shared: Final = state if isinstance(state, SharedState) else None
        self._copies: Final = copies
        self._used: Final[dict[str, None]] = {}  # the copies, the one used longest ago first
        self._finding: Final[dict[tuple[str, str], asyncio.Task[None]]] = {}
        self._storing: Final[dict[AcceptedChat, asyncio.Task[Usage]]] = {}

    async def start(self) -> dict[str, str] | None:
        """Take back the contexts of the state; return the mode of each by id, or None where memory holds copies.

        Raises:
            SessionError: the state cannot be used.
        """
        if self._state is None:
            return None
        records = await self._state.start()
        left = sum(not self.table.restore(record) for record in records)
        if left:
            _log.warning("%d contexts of models that are not served, or of larger windows, stay in the state", left)
        return None if self._shared is not None else {record.id: record.mode for record in records}

    async def aclose(self) -> None:
        """Wait until the turns under way are kept, and close the state."""
        if self._state is None:
            return
        await asyncio.gather(*self._storing.values(), return_exceptions=True)
        await self._state.aclose()

    def calls(self, clock: Callable[[], float]) -> Calls:
        """Return the counts of calls, which a shared state keeps for all gateways."""
        return Calls(clock, self._shared)

    async def keep(self, context: ServedContext, initial: Sequence[SizedMessage], client: Client) -> None:
        """Keep a context that the table has created.

        Raises:
            APIStatusError: the state cannot keep the context, which has ended then.
        """
        if self._state is None:
            return
        record = ContextRecord(
            id=context.id,
            model=context.model,
            mode=context.mode,
            ttl=context.ttl,
            strategy=context.window.strategy,
            initial=initial,
            deadline=context.deadline,
            owner=context.owner,
        )
        try:
            await self._state.create(record, client.limits)
        except APIStatusError:
            self.table.expire(context.id)  # here alone: another gateway's context may have the id in the state
            raise
        self._note_use(context.id)

    def expire(self, context_id: str) -> bool:
        """End a context now; False for one that is not in memory."""
        ended = self.table.expire(context_id)
        if ended and self._shared is not None:
            self._shared.forget(context_id)
        return ended

    # --- chats

    async def begin(self, request: ChatRequest, sized: Sequence[SizedMessage], client: Client) -> AcceptedChat:
        """Accept a chat of a client, or refuse it.

        Raises:
            APIStatusError: as `ContextTable.begin`; and where the state cannot be reached.
        """
        if self._shared is None:
            return self.table.begin(request, sized, client)
        context = await self._copy_of(self._shared, request.context_id, client.owner)
        if context is None or context.mode != "session" or context.running or context.model != request.model:
            return self.table.begin(request, sized, client)  # there is nothing to claim
        return await self._begin_claimed(self._shared, context, request, sized, client)

    async def _begin_claimed(
        self,
        shared: SharedState,
        context: ServedContext,
        request: ChatRequest,
        sized: Sequence[SizedMessage],
        client: Client,
    ) -> AcceptedChat:
        context.running += 1  # neither expires nor takes another call meanwhile
        try:
            claim = await shared.claim(
                context.id, context.window.stored, total_memory(sized), client.limits.memory_bytes
            )
        finally:
            context.running -= 1
        if claim is None:
            self.table.drop(context.id)
        elif claim.busy:
            context.elsewhere = True
        elif claim.stored < context.window.stored:  # the state was set back: the next call asks for the context
            shared.release(context.id, None)
            self.table.drop(context.id)
            raise unreachable("it has an older copy of the session")
        else:
            self.table.catch_up(context, claim.messages, claim.first, claim.stored, claim.deadline)
        try:
            return self.table.begin(request, sized, client)
        except APIStatusError:
            if claim is not None and not claim.busy:
                shared.release(context.id, None)
            raise
        finally:
            context.elsewhere = False

    async def _copy_of(self, shared: SharedState, context_id: str, owner: str) -> ServedContext | None:
        """Return the copy of a client's context, which the first of several callers makes.

        The state is asked even where there is a copy of another client's context: an answer without that would be
        quicker than for an id that was never given.
        """
        context = self._copy_in_memory(context_id, owner)
        if context is None:
            finding = self._finding.get((context_id, owner))
            if finding is None:
                finding = asyncio.create_task(self._find(shared, context_id, owner))
                self._finding[context_id, owner] = finding
                finding.add_done_callback(_retrieve)
            await asyncio.shield(finding)
            context = self._copy_in_memory(context_id, owner)
        if context is not None:
            self._note_use(context_id)
        return context

    def _copy_in_memory(self, context_id: str, owner: str) -> ServedContext | None:
        context = self.table.get(context_id)
        return context if context is not None and context.owner == owner else None

    async def _find(self, shared: SharedState, context_id: str, owner: str) -> None:
        try:
            record = await shared.find(context_id, owner)
            if record is not None:
                self.table.restore(record)
        finally:
            del self._finding[context_id, owner]

    def _note_use(self, context_id: str) -> None:
        """Note the use of a copy, and drop those used longest ago where they take too much memory."""
        if self._shared is None:
            return
        self._used.pop(context_id, None)
        self._used[context_id] = None
        for _ in range(len(self._used)):
            oldest = next(iter(self._used))
            context = self.table.get(oldest)
            if context is not None and self.table.memory <= self._copies:
                break
            del self._used[oldest]
            if context is not None and (context.running or oldest == context_id):
                self._used[oldest] = None
            elif context is not None:
                self.table.drop(oldest)

    async def complete(self, chat: AcceptedChat) -> Usage:
        """End a call with every reply ended, and store the turn; return the usage by the gateway's own count.

        Raises:
            APIStatusError: the state cannot keep the turn, which is not stored then.
        """
        if self._state is None or not chat.turn():
            return chat.complete()
        task = self._storing[chat] = asyncio.create_task(self._store(self._state, chat))
        task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _store(self, state: State, chat: AcceptedChat) -> Usage:
        """Keep the turn, then store it in memory."""
        context, turn = chat.context, chat.turn()
        try:
            if context.live:
                dropped = context.window.dropped_by(turn)
                await state.append(context.id, turn, dropped, self.table.next_deadline(context))
            return chat.complete()
        except APIStatusError:
            if self._shared is not None:
                self.table.drop(context.id)  # another gateway may have stored a turn; the next call asks
            raise
        finally:
            del self._storing[chat]
            chat.abandon()

    def abandon(self, chat: AcceptedChat) -> None:
        """Free the context and store nothing. No effect after `complete`, nor while a turn is being kept."""
        if chat in self._storing:
            return
        chat.abandon()
        if self._state is not None:
            self._state.release(chat.context.id, chat.context.deadline)


def _retrieve(task: asyncio.Task[Usage] | asyncio.Task[None]) -> None:
    """Look at the outcome: the client may have left, and then nobody else does."""
    if not task.cancelled():
        task.exception()
