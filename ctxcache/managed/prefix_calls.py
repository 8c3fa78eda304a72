"""The calls over one prefix: each on the context there is, repeated where that turns out to be gone, and booked."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..errors import CtxCacheError
from ..hooks import WarningEvent
from ..models import ChatCompletion, Message, Usage
from ..session import AsyncSession
from ..stream import ChatStream
from .costs import Ledger
from .renewal import Live, Renewal, Tries
from .streams import ManagedStream

__all__ = ["PrefixCalls"]

log: Final = logging.getLogger("ctxcache")

_UNCACHED: Final = (
    "a repeat use shows no cached tokens; likely reasons: caching is not enabled for this account or model, the "
    "gateway sent the calls to another model or upstream key, or the window was recomputed (rolling_tokens)"
)


class PrefixCalls:
    """Makes the calls of one `Prefix`. Messages and options are checked by then, and may be sent more than once.

    Args:
        session: who makes them.
        model: the model's id.
        renewal: keeps the context alive.
        is_gone: which errors say that it is gone.
        ledger: is told of every use.
        clock: Unix seconds.
    """

    def __init__(
        self,
        session: AsyncSession,
        model: str,
        *,
        renewal: Renewal,
        is_gone: Callable[[CtxCacheError], bool],
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._model = model
        self.renewal = renewal
        self.clock = clock
        self._is_gone = is_gone
        self._ledger = ledger

    async def ask(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> ChatCompletion:
        """Make a plain call.

        Raises:
            CtxCacheError: any of the family, from creating the context or from the call.
        """
        tries = self.tries()
        live: Live | None = await tries.first()
        while live is not None:
            sent = self.clock()
            try:
                reply: ChatCompletion = await self._session.chat.create(
                    context_id=live.context.id, model=self._model, messages=messages, **options
                )
            except CtxCacheError as error:
                failure = error
            else:
                self.enter(live, reply.usage, sent)
                if self.renewal.used(live, sent):
                    await self.renewal.tell(live)
                return reply
            live = await tries.next(failure)
        raise failure

    def stream(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> ManagedStream:
        """Make a streamed call; nothing is sent before the result is used."""
        return ManagedStream(_Streaming(self, lambda context_id: self.start(context_id, messages, options)))

    def start(self, context_id: str, messages: tuple[Message, ...], options: Mapping[str, Any]) -> ChatStream:
        """Return a stream that is not opened: nothing is sent yet, but all of it is checked.

        Raises:
            InvalidInputError: for an option out of its range.
        """
        return self._session.chat.stream(context_id=context_id, model=self._model, messages=messages, **options)

    def tries(self) -> Tries:
        """The contexts for one call."""
        return Tries(self.renewal, self._is_gone)

    def enter(self, live: Live, usage: Usage | None, sent: float) -> None:
        """Enter a call in the books, and say it where a repeat use was not cached."""
        context_id = live.context.id
        if not self._ledger.used(context_id, usage, sent):
            return
        message = f"context {context_id}: {_UNCACHED}"
        log.warning("%s", message)
        self._session.hooks.fire(
            "on_warning", lambda: WarningEvent(kind="uncached", message=message, context_id=context_id)
        )


class _Streaming:
    """Answers for one stream: see `StreamOwner`."""

    def __init__(self, calls: PrefixCalls, start: Callable[[str], ChatStream]) -> None:
        self._calls = calls
        self._start = start
        self._tries = calls.tries()
        self._live: Live | None = None
        self._sent = 0.0

    async def begin(self) -> ChatStream:
        return await self._opened(await self._tries.first())

    async def again(self, error: CtxCacheError) -> ChatStream | None:
        live = await self._tries.next(error)
        return None if live is None else await self._opened(live)

    async def _opened(self, first: Live) -> ChatStream:
        live: Live | None = first
        while live is not None:
            self._live, self._sent = live, self._calls.clock()
            try:
                return await self._start(live.context.id).open()
            except CtxCacheError as error:
                failure = error
            live = await self._tries.next(failure)
        raise failure

    def ended(self, stream: ChatStream | None, error: BaseException | None) -> None:
        live = self._live
        if stream is None or live is None:
            return
        if isinstance(error, CtxCacheError):
            self._tries.gave_up(error)
        if error is None or stream.usage is not None:
            self._calls.enter(live, stream.usage, self._sent)
        if error is None and self._calls.renewal.used(live, self._sent):
            self._calls.renewal.tell_later(live)
