"""One call over a prefix: sent on the context there is, and repeated where that turns out to be gone."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ...client.stream import ChatStream
from ...errors import CtxCacheError
from ...models import Usage
from ..keeper import ContextKeeper
from .renewal import Live, Renewal

__all__ = ["PrefixCall"]

T = TypeVar("T")


class PrefixCall(Generic[T]):
    """One call, plain or streamed. Of a stream it is the owner: see `StreamOwner`.

    It is sent at most twice; a third time only where the second context was adopted from the store, since nobody knows
    how long that had been gone. The third one is created here, so there is no loop.

    Args:
        contexts: the books, and what says that a context is gone.
        renewal: gives the contexts.
        send: sends it, given the id of a context; its messages and options may be sent more than once.
    """

    def __init__(self, contexts: ContextKeeper, renewal: Renewal, send: Callable[[str], Awaitable[T]]) -> None:
        self._keeper = contexts
        self._renewal = renewal
        self._send = send
        self._times = 0
        self._sent = 0.0
        self._live: Live | None = None  # the context it was last sent on

    async def begin(self) -> T:
        """Send it.

        Raises:
            CtxCacheError: any of the family, from creating the context or from the call.
        """
        return await self._sent_on(await self._renewal.current())

    async def again(self, error: CtxCacheError) -> T | None:
        """Send it once more after this error, if that says that the context is gone; None: raise the error."""
        live = await self._next(error)
        return None if live is None else await self._sent_on(live)

    async def _sent_on(self, first: Live) -> T:
        live: Live | None = first
        while live is not None:
            self._live, self._sent = live, self._keeper.clock()
            self._times += 1
            try:
                return await self._send(live.context.id)
            except CtxCacheError as error:
                failure = error
            live = await self._next(failure)
        raise failure

    async def _next(self, error: CtxCacheError) -> Live | None:
        """Return the context to repeat the call on, or None."""
        failed = self._live
        if failed is None or not self._gave_up(error):
            return None
        if self._times == 1:
            return await self._renewal.current()
        return await self._renewal.created() if self._times == 2 and failed.adopted else None

    def _gave_up(self, error: CtxCacheError) -> bool:
        """Whether the error says that the context is gone; then it is given up."""
        gone = self._live is not None and self._keeper.is_gone(error)
        if gone and self._live is not None:
            self._renewal.gone(self._live)
        return gone

    async def answered(self, usage: Usage | None) -> None:
        """Note that a plain call was answered."""
        if self._live is not None:
            self._keeper.used(self._live.context.id, usage, self._sent)
            if self._renewal.used(self._live, self._sent):
                await self._renewal.tell(self._live)

    def hold_here(self) -> None:
        """Nothing to note: on a prefix no call waits for another."""

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        """Note the end of a stream, however it came."""
        live = self._live
        if stream is None or live is None:
            return
        if isinstance(error, CtxCacheError):
            self._gave_up(error)
        if error is None or stream.usage is not None:
            self._keeper.used(live.context.id, stream.usage, self._sent)
        if error is None and self._renewal.used(live, self._sent):
            self._renewal.tell_later(live)
