"""`PrefixCall`: a call over a prefix, sent on the context of the moment, and repeated if that turns out to be gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from ...client.call import ContextMissing
from ...client.stream import ChatStream
from ...config import Retry
from ...errors import CtxCacheError
from ...models import Usage
from ..deadline import Deadline
from ..keeper import ContextKeeper
from ..live import LiveContext
from .renewal import Renewal
from .repeat_budget import SHARE
from .shared_pause import SharedPause

__all__ = ["PrefixCall", "Send"]

_MOST_CONTEXTS: Final = 5

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Send(Protocol[T_co]):
    """Sends the call on the context that `choose` names at the moment of sending."""

    def __call__(
        self, choose: Callable[[], str], /, *, waited: float, urgent: bool, on_pause: Callable[[float], object]
    ) -> Awaitable[T_co]:
        """Send; see `ChatEndpoint.send` for the arguments."""
        ...


class PrefixCall(Generic[T]):
    """One call, plain or streamed; for a stream it is the `StreamOwner`.

    The context is chosen when a connection is at hand, and chosen anew for each attempt. Whatever became of contexts
    while the call waited, the call goes out on the context known to be alive at that moment; and not during a pause.

    A call whose context is gone is repeated, in front of the calls that wait for a connection. If the second context,
    which is newer, is gone as well, the call fails, with two exceptions:

    - The second context was adopted from the store, which may have kept a dead context for long: the call is repeated
      on a context created here.
    - The second context had answered calls before, or a newer context is known. So contexts do live for a while, and
      the call is repeated, on five contexts at most and as long as the prefix's budget lasts. So even a storm of deaths
      costs little more than two POSTs a call; and a service whose contexts are dead from the start costs two.

    Args:
        keeper: decides which errors say that a context is gone.
        renewal: provides the contexts.
        send: sends the call.
        pause: when the service may be called again.
        policy: says for how long the call may wait for the end of a pause. A call without retries does not wait.
        total: seconds for the whole call from `begin` on, or None.
    """

    def __init__(
        self,
        keeper: ContextKeeper,
        renewal: Renewal,
        send: Send[T],
        *,
        pause: SharedPause,
        policy: Retry,
        total: float | None,
    ) -> None:
        self._keeper = keeper
        self._renewal = renewal
        self._send = send
        self._pause = pause
        self._total = total
        self._deadline: Deadline | None = None
        self._patience = policy.max_retry_after if policy.attempts > 1 else 0.0  # seconds that are left for pauses
        self._gone = 0  # contexts that the call found gone
        self._created_only = False
        self._short_lived: LiveContext | None = None  # new, and expired when it came
        self._live: LiveContext | None = None  # the context of the last attempt
        self._sent_at = 0.0

    async def begin(self) -> T:
        """Send the call.

        Raises:
            CtxCacheError: any of the family, from creating the context or from the call.
        """
        if self._total is not None:
            self._deadline = Deadline(self._total)
        self._renewal.budget.tokens += SHARE
        return await self._run()

    async def _run(self) -> T:
        while True:
            failure: CtxCacheError | None = None
            try:
                waited = 0.0 if self._deadline is None else self._deadline.waited
                return await self._send(self._choose, waited=waited, urgent=self._gone > 0, on_pause=self._refused)
            except ContextMissing:
                pass
            except CtxCacheError as error:
                failure = error
            # Outside the handlers, so that no error hangs on another without need.
            if failure is None:
                ready = self._ready()
                await (ready if self._deadline is None else self._deadline.wait(ready))
            elif not self._may_repeat(failure):
                raise failure

    async def _ready(self) -> None:
        """Wait for the end of a pause, or for a context."""
        if self._must_wait():
            self._patience = await self._pause.wait(self._patience)
            return
        renewal = self._renewal
        live = await (renewal.created() if self._created_only else renewal.current())
        self._short_lived = live if live.expired(self._keeper.clock()) else None

    def _must_wait(self) -> bool:
        """Whether the call waits for the end of a pause."""
        return self._pause.seconds > 0 and self._patience > 0

    def _refused(self, seconds: float) -> None:
        """Tell others of the wait that a 429 asks for; from now on the call keeps to its own retries."""
        self._patience = 0.0
        self._pause.begin(seconds)

    async def again(self, error: CtxCacheError) -> T | None:
        """Repeat the call if the error says that its context is gone; None: raise the error."""
        return await self._run() if self._may_repeat(error) else None

    def _choose(self) -> str:
        """Choose the context at the moment of sending."""
        if self._must_wait():
            raise ContextMissing
        live = self._renewal.live
        if live is None and self._short_lived is self._renewal.latest:
            live = self._short_lived  # a new one would be no better
        if live is None or (self._created_only and live.adopted):
            raise ContextMissing
        self._live, self._sent_at = live, self._keeper.clock()
        return live.context.id

    def _may_repeat(self, error: CtxCacheError) -> bool:
        """Whether to send the call again after this error; then its context is discarded."""
        failed = self._live
        if failed is None or not self._discard_if_gone(failed, error):
            return False
        self._gone += 1
        if self._gone == 1:
            return True
        if self._gone == 2 and failed.adopted:
            self._created_only = True
            return True
        if self._gone == _MOST_CONTEXTS or not (failed.answered or self._renewal.superseded(failed)):
            return False
        return self._renewal.budget.withdraw()

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

    async def settled(self) -> None:
        """Do nothing: the store is told beside the calls."""

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
