"""`PrefixCall`: one call over a prefix, sent on the current context and repeated if that turns out to be gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ...client.stream import ChatStream
from ...errors import CtxCacheError
from ...models import Usage
from ..keeper import ContextKeeper
from ..live import LiveContext
from .renewal import Renewal

__all__ = ["PrefixCall"]

T = TypeVar("T")


class PrefixCall(Generic[T]):
    """One call, plain or streamed; for a stream it is the `StreamOwner`.

    It is sent at most twice, and a third time only if the second context was adopted from the store, which may have
    kept a dead one for long. The third context is created here, so there is no loop.

    Args:
        keeper: decides which errors say that a context is gone.
        renewal: provides the contexts.
        send: sends the call, given the id of a context; called once for each attempt.
    """

    def __init__(self, keeper: ContextKeeper, renewal: Renewal, send: Callable[[str], Awaitable[T]]) -> None:
        self._keeper = keeper
        self._renewal = renewal
        self._send = send
        self._attempts = 0
        self._sent_at = 0.0
        self._live: LiveContext | None = None  # the context of the last attempt

    async def begin(self) -> T:
        """Send the call.

        Raises:
            CtxCacheError: any of the family, from creating the context or from the call.
        """
        return await self._send_on(await self._renewal.current())

    async def again(self, error: CtxCacheError) -> T | None:
        """Repeat the call if the error says that its context is gone; None: raise the error."""
        live = await self._successor(error)
        return None if live is None else await self._send_on(live)

    async def _send_on(self, first: LiveContext) -> T:
        live: LiveContext | None = first
        while live is not None:
            self._live, self._sent_at = live, self._keeper.clock()
            self._attempts += 1
            try:
                return await self._send(live.context.id)
            except CtxCacheError as error:
                failure = error
            live = await self._successor(failure)
        raise failure

    async def _successor(self, error: CtxCacheError) -> LiveContext | None:
        """Return the context on which to repeat the call; None if it is not to be repeated."""
        failed = self._live
        if failed is None or not self._discard_if_gone(failed, error):
            return None
        if self._attempts == 1:
            return await self._renewal.current()
        return await self._renewal.created() if self._attempts == 2 and failed.adopted else None

    def _discard_if_gone(self, live: LiveContext, error: CtxCacheError) -> bool:
        gone = self._keeper.is_gone(error)
        if gone:
            self._renewal.discard(live)
        return gone

    async def answered(self, usage: Usage | None) -> None:
        """Note that a plain call was answered."""
        if (live := self._live) is not None:
            live.used(usage, self._sent_at)
            if self._renewal.note_use(live):
                await asyncio.sleep(0)  # so that the store, if closed right now, finds the operation under way

    def hold_here(self) -> None:
        """Do nothing: calls over a prefix do not wait for one another."""

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Note the end of a stream, however it came."""
        live = self._live
        if stream is None or live is None:
            return
        if isinstance(error, CtxCacheError):
            self._discard_if_gone(live, error)
        if error is None or stream.usage is not None:
            live.used(stream.usage, self._sent_at)
        if error is None:
            self._renewal.note_use(live)
