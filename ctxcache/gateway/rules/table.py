"""All contexts of a gateway and the rules for them, pure: time and randomness are parameters.

A context ends by its ttl alone: an idle timer that starts with the context and restarts with every use. A use is an
accepted call, one that passed every check; a refused call is none. No context expires during a call, and the timer
restarts when the call ends, answered or not.

A context belongs to the client that created it (`Client.owner`). For every other client no such context exists, and
the refusal takes the same way as that of an id that was never given.

A session context takes one call at a time: it is busy from the call's acceptance until `AcceptedChat.complete` or
`AcceptedChat.abandon`. Only `complete` stores a turn. A common prefix never changes and takes any number of calls.

A `ContextRecord` is a context as a state keeps it beyond the process; `ContextTable.restore` takes one back.

Expired contexts are found through a heap of due times with one entry per context. A restarted timer does not move the
entry; an entry that comes up too early is put back. Cost: O(log n) per context and ttl, and nothing is scanned. Each
call removes a limited number, so that many contexts that expire together do not hold up one call; an expired context is
gone for every call, removed or not.

A `Quota` counts everything that stays, of each owner and of all: contexts, and the memory of their messages. A question
on a session counts from the call's acceptance.
"""

import heapq
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from ...config import Unset
from ...models import (
    DEFAULT_TTL,
    ChatRequest,
    ContextRequest,
)
from .clients import ONLY, Client
from .quota import Quota
from .records import ContextRecord
from .refusals import bad_request, busy, context_not_found, model_not_found
from .reply import Reply
from .served import AcceptedChat, ServedContext
from .sizes import SizedMessage, measure, total_memory, total_tokens, weigh
from .window import DEFAULT_STRATEGY, Window

__all__ = ["MAX_REPLIES", "ContextTable"]

MAX_REPLIES: Final = 128  # the documents give `n` no bound; this is OpenAI's
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SUFFIXES: Final = len(_DIGITS) ** 5
_REMOVED_AT_ONCE: Final = 10_000  # some milliseconds

T = TypeVar("T")


class ContextTable:
    """Every context of one gateway.

    Args:
        models: the context window of each served model, in tokens.
        clock: the wall clock, Unix seconds.
        randbelow: randomness for ids, as `secrets.randbelow`.
        quota: how much all contexts may take.
        on_end: called with the id of each context that ends.
        removed_at_once: how many expired contexts and messages one call removes, about.
    """

    def __init__(
        self,
        models: Mapping[str, int],
        clock: Callable[[], float],
        randbelow: Callable[[int], int],
        quota: Quota | None = None,
        on_end: Callable[[str], object] = lambda _: None,
        removed_at_once: int = _REMOVED_AT_ONCE,
    ) -> None:
        self.models: Final = dict(models)
        self._clock: Final = clock
        self._randbelow: Final = randbelow
        self._quota: Final = Quota() if quota is None else quota
        self._quotas: Final[dict[str, Quota]] = {"": self._quota}
        self._on_end: Final = on_end
        self._removed_at_once: Final = removed_at_once
        self._live: dict[str, ServedContext] = {}
        self._due: list[tuple[float, str]] = []
        self._second = ""
        self._given: set[str] = set()  # ids given in that second

    @property
    def memory(self) -> int:
        """The bytes of memory that all messages take."""
        return self._quota.memory

    def measure(self, request: ContextRequest | ChatRequest) -> tuple[SizedMessage, ...]:
        """Measure a request's messages for `create` or `begin`. May run in a thread.

        Raises:
            APIStatusError: for an unknown model, and messages that fill the window by the number of characters alone.
        """
        return measure(request.messages, self._window_of(request.model))

    def weigh(self, request: ContextRequest | ChatRequest) -> tuple[SizedMessage, ...]:
        """Measure a request's messages as `measure` does, but for the tokens, which the engine counts.

        Raises:
            APIStatusError: for an unknown model, and so many messages that they fill the window.
        """
        return weigh(request.messages, self._window_of(request.model))

    def create(
        self, request: ContextRequest, sized: Sequence[SizedMessage] | None = None, client: Client = ONLY
    ) -> ServedContext:
        """Create a context.

        Args:
            request: the request.
            sized: what `measure` returned for the request; None: measured here.
            client: the client that asks.

        Raises:
            APIStatusError: for an unknown model, messages that fill the window, and a quota that is used up.
        """
        now = self._clock()
        self._remove_expired(now)
        size = self._window_of(request.model)
        mode = _or(request.mode, "session")
        ttl = _or(request.ttl, DEFAULT_TTL)
        strategy = _or(request.truncation_strategy, DEFAULT_STRATEGY) if mode == "session" else None
        window = Window(size, strategy, self.measure(request) if sized is None else sized)
        self._quota_for(client).add_context(window.memory)
        context = ServedContext(
            id=self._new_id(now),
            model=request.model,
            mode=mode,
            ttl=ttl,
            window=window,
            deadline=now + ttl,
            owner=client.owner,
        )
        self._live[context.id] = context
        heapq.heappush(self._due, (context.deadline, context.id))
        return context

    def restore(self, record: ContextRecord) -> bool:
        """Take back a context from a state; False for a model that is not served, or serves smaller windows now.

        No quota refuses: the context was accepted before. Of a context that is in the table the timer is set.
        """
        if record.id in self._live:
            self._live[record.id].deadline = max(self._live[record.id].deadline, record.deadline)
            return True
        size = self.models.get(record.model, 0)
        if total_tokens(record.initial) >= size:
            return False
        window = Window(size, record.strategy, record.initial, record.history, record.stored)
        context = ServedContext(
            id=record.id,
            model=record.model,
            mode=record.mode,
            ttl=record.ttl,
            window=window,
            deadline=record.deadline,
            owner=record.owner,
        )
        self._quota_of(record.owner).shift(window.memory, contexts=1)
        self._live[context.id] = context
        heapq.heappush(self._due, (context.deadline, context.id))
        return True

    def begin(
        self, request: ChatRequest, sized: Sequence[SizedMessage] | None = None, client: Client = ONLY
    ) -> AcceptedChat:
        """Accept a chat, or refuse it.

        Args:
            request: the request.
            sized: what `measure` returned for the request; None: measured here.
            client: the client that asks.

        Raises:
            APIStatusError: for an unknown model or context, another model than the context's, a busy session, a
                question that does not fit the window, and a quota that is used up; in this order.
        """
        now = self._clock()
        self._remove_expired(now)
        self._window_of(request.model)
        context = self._find(request.context_id, now)
        if context is None or context.owner != client.owner:
            raise context_not_found(request.context_id)
        if request.model != context.model:
            raise bad_request("model", f"The context was made for the model {context.model}.")
        replies = _or(request.n, 1)
        if replies > MAX_REPLIES:
            raise bad_request("n", f"The parameter n must be a whole number in [1, {MAX_REPLIES}], got {replies}.")
        if context.mode == "session" and (context.running or context.elsewhere):
            raise busy()
        if sized is None:
            sized = self.measure(request)
        plan = context.window.plan(total_tokens(sized))
        reserved = total_memory(sized) if context.mode == "session" else 0
        quota = self._quota_for(client)
        quota.grow(context.window.memory, reserved)
        context.running += 1
        limit = min(plan.room, _or(request.max_tokens, plan.room))
        stops = _stops(request)
        return AcceptedChat(
            request=request,
            context=context,
            sized=sized,
            held=context.window.messages(plan.dropped),
            plan=plan,
            max_tokens=limit,
            stops=stops,
            replies=tuple(Reply(stops, limit) for _ in range(replies)),
            clock=self._clock,
            quota=quota,
            reserved=reserved,
        )

    def get(self, context_id: str) -> ServedContext | None:
        """Return a context; None if unknown or expired. This is no use: the timer runs on."""
        now = self._clock()
        self._remove_expired(now)
        return self._find(context_id, now)

    def expire(self, context_id: str) -> bool:
        """Remove a context now, as the ttl would; False if unknown. A running call still gets an answer."""
        if not self.drop(context_id):
            return False
        self._on_end(context_id)
        return True

    def drop(self, context_id: str) -> bool:
        """Remove a context that a state still has; False if unknown."""
        context = self._live.pop(context_id, None)
        if context is None:
            return False
        context.live = False
        self._quota_of(context.owner).remove_context(context.window.memory)
        return True

    def catch_up(
        self, context: ServedContext, messages: Sequence[SizedMessage], first: int, stored: int, deadline: float
    ) -> None:
        """Take over what other gateways have stored in a session: see `Window.catch_up`; `deadline` ends the timer."""
        before = context.window.memory
        context.window.catch_up(messages, first, stored)
        self._quota_of(context.owner).shift(context.window.memory - before)
        context.deadline = max(context.deadline, deadline)

    def next_deadline(self, context: ServedContext) -> float:
        """Return when the idle timer ends if the context is used now."""
        return max(context.deadline, self._clock() + context.ttl)

    def _quota_for(self, client: Client) -> Quota:
        """Return the quota of a client, with the limits that the key has now."""
        quota = self._quota_of(client.owner)
        if quota is not self._quota and not self._quota.elsewhere:
            quota.max_contexts = client.limits.contexts or sys.maxsize
            quota.max_memory = client.limits.memory_bytes or sys.maxsize
        return quota

    def _quota_of(self, owner: str) -> Quota:
        quota = self._quotas.get(owner)
        if quota is None:
            quota = self._quotas[owner] = Quota(
                max_contexts=sys.maxsize,
                max_memory=sys.maxsize,
                max_context_memory=self._quota.max_context_memory,
                within=self._quota,
            )
        return quota

    def _find(self, context_id: str, now: float) -> ServedContext | None:
        context = self._live.get(context_id)
        expired = context is not None and not context.running and context.deadline <= now
        return None if expired else context

    def _window_of(self, model: str) -> int:
        if model not in self.models:
            raise model_not_found(model)
        return self.models[model]

    def _remove_expired(self, now: float) -> None:
        left = self._removed_at_once
        while self._due and self._due[0][0] <= now and left > 0:
            left -= 1
            _, context_id = heapq.heappop(self._due)
            context = self._live.get(context_id)
            if context is None:
                continue  # removed by hand
            if context.running:
                heapq.heappush(self._due, (now + context.ttl, context_id))
            elif context.deadline > now:
                heapq.heappush(self._due, (context.deadline, context_id))
            else:
                left -= len(context.window.initial) + len(context.window.history)
                self.expire(context_id)

    def _new_id(self, now: float) -> str:
        """Make `ctx-<yyyymmddHHMMSS>-<5 characters>` (API reference), unique even if randomness repeats itself."""
        second = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%S")
        if second != self._second:
            self._second = second
            self._given.clear()
        number = self._randbelow(_SUFFIXES)
        while (name := f"ctx-{second}-{_suffix(number)}") in self._given or name in self._live:
            number += 1
        self._given.add(name)
        return name


def _or(value: T | Unset, default: T) -> T:
    return default if isinstance(value, Unset) else value


def _suffix(number: int) -> str:
    characters = ""
    for _ in range(5):
        number, digit = divmod(number, len(_DIGITS))
        characters = _DIGITS[digit] + characters
    return characters


def _stops(request: ChatRequest) -> tuple[str, ...]:
    stop = _or(request.stop, ())
    return (stop,) if isinstance(stop, str) else tuple(stop)
