"""All contexts of a gateway and the rules for them, pure: time and randomness are parameters.

A context ends by its ttl alone: an idle timer that starts with the context and restarts with every use. A use is an
accepted call, one that passed every check; a refused call is none. No context expires during a call, and the timer
restarts when the call ends, answered or not.

A session context takes one call at a time: it is busy from the call's acceptance until `AcceptedChat.complete` or
`AcceptedChat.abandon`. Only `complete` stores a turn. A common prefix never changes and takes any number of calls.

Expired contexts are found through a heap of due times with one entry per context. A restarted timer does not move the
entry; an entry that comes up too early is put back. Cost: O(log n) per context and ttl, and nothing is scanned. Each
call removes a limited number, so that many contexts that expire together do not hold up one call; an expired context is
gone for every call, removed or not.

A `Quota` counts everything that stays: contexts, and the memory of their messages. A question on a session counts from
the call's acceptance.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import attrs

from ...config import Unset
from ...models import (
    DEFAULT_TTL,
    ChatRequest,
    ContextRequest,
    Message,
    PromptTokensDetails,
    Usage,
)
from .quota import Quota
from .refusals import bad_request, busy, context_not_found, model_not_found
from .reply import Reply
from .sizes import SizedMessage, measure, total_memory, total_tokens, weigh
from .window import DEFAULT_STRATEGY, Plan, Window

__all__ = ["MAX_REPLIES", "AcceptedChat", "ContextTable", "ServedContext"]

MAX_REPLIES: Final = 128  # the documents give `n` no bound; this is OpenAI's
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SUFFIXES: Final = len(_DIGITS) ** 5
_REMOVED_AT_ONCE: Final = 10_000  # some milliseconds

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class ServedContext:
    """One context.

    Attributes:
        id, model, mode, ttl: as created; ttl in seconds.
        window: the messages held.
        deadline: when the idle timer ends, Unix seconds by the clock of `ContextTable`.
        running: the number of calls under way.
        live: whether the context is still in the table.
    """

    id: str
    model: str
    mode: str
    ttl: int
    window: Window
    deadline: float
    running: int = 0
    live: bool = True

    @property
    def usage(self) -> Usage:
        """The usage of the create (API reference: nothing completed, nothing cached)."""
        return _usage(self.window.initial_tokens, 0, 0)


@attrs.define(eq=False, kw_only=True)
class AcceptedChat:
    """An accepted chat, which holds the context until `complete` or `abandon`.

    Attributes:
        request: the chat request.
        context: the context of the call.
        sized: the request's messages with their sizes.
        held: the context's messages that the engine sees.
        plan: how the call fits the window.
        max_tokens: the most tokens of a reply: what the request allows, within the room of the window.
        stops: the stop strings.
        replies: `n` replies, to be fed.
    """

    request: ChatRequest
    context: ServedContext
    sized: Sequence[SizedMessage]
    held: tuple[Message, ...]
    plan: Plan
    max_tokens: int
    stops: tuple[str, ...]
    replies: tuple[Reply, ...]
    _clock: Callable[[], float]
    _quota: Quota
    _reserved: int  # bytes of memory
    _open: bool = attrs.field(default=True, init=False)

    @property
    def question(self) -> tuple[Message, ...]:
        """The request's messages."""
        return self.request.messages

    def complete(self) -> Usage:
        """End the call with every reply ended: a session stores the turn, with the first of `n` replies as answer.

        Returns:
            The usage by the gateway's own count, as if every token of the context had been cached.
        """
        rolled = False
        if self.context.mode == "session" and self.plan.room:  # without room there was no reply
            rolled = self._store()
        self.abandon()
        prompt = self.plan.kept + total_tokens(self.sized)
        completion = sum(reply.tokens for reply in self.replies)
        return _usage(prompt, completion, 0 if rolled else self.plan.kept)

    def _store(self) -> bool:
        window, reply = self.context.window, self.replies[0]
        before = window.memory
        answer = SizedMessage.of(reply.message, None if reply.reasoning else reply.tokens)  # reasoning is not stored
        rolled = window.store([*self.sized, answer])
        if self.context.live:
            self._quota.memory += window.memory - before
        return rolled

    def abandon(self) -> None:
        """Free the context and store nothing. No effect after `complete`."""
        if self._open:
            self._open = False
            self._quota.memory -= self._reserved
            self.context.running -= 1
            _start_timer(self.context, self._clock())


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
        self._on_end: Final = on_end
        self._removed_at_once: Final = removed_at_once
        self._live: dict[str, ServedContext] = {}
        self._due: list[tuple[float, str]] = []
        self._second = ""
        self._given: set[str] = set()  # ids given in that second

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

    def create(self, request: ContextRequest, sized: Sequence[SizedMessage] | None = None) -> ServedContext:
        """Create a context.

        Args:
            request: the request.
            sized: what `measure` returned for the request; None: measured here.

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
        self._quota.add_context(window.memory)
        context = ServedContext(
            id=self._new_id(now), model=request.model, mode=mode, ttl=ttl, window=window, deadline=now + ttl
        )
        self._live[context.id] = context
        heapq.heappush(self._due, (context.deadline, context.id))
        return context

    def begin(self, request: ChatRequest, sized: Sequence[SizedMessage] | None = None) -> AcceptedChat:
        """Accept a chat, or refuse it.

        Args:
            request: the request.
            sized: what `measure` returned for the request; None: measured here.

        Raises:
            APIStatusError: for an unknown model or context, another model than the context's, a busy session, a
                question that does not fit the window, and a quota that is used up; in this order.
        """
        now = self._clock()
        self._remove_expired(now)
        self._window_of(request.model)
        context = self._find(request.context_id, now)
        if context is None:
            raise context_not_found(request.context_id)
        if request.model != context.model:
            raise bad_request("model", f"The context was made for the model {context.model}.")
        replies = _or(request.n, 1)
        if replies > MAX_REPLIES:
            raise bad_request("n", f"The parameter n must be a whole number in [1, {MAX_REPLIES}], got {replies}.")
        if context.mode == "session" and context.running:
            raise busy()
        if sized is None:
            sized = self.measure(request)
        plan = context.window.plan(total_tokens(sized))
        reserved = total_memory(sized) if context.mode == "session" else 0
        self._quota.grow(context.window.memory, reserved)
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
            quota=self._quota,
            reserved=reserved,
        )

    def get(self, context_id: str) -> ServedContext | None:
        """Return a context; None if unknown or expired. This is no use: the timer runs on."""
        now = self._clock()
        self._remove_expired(now)
        return self._find(context_id, now)

    def expire(self, context_id: str) -> bool:
        """Remove a context now, as the ttl would; False if unknown. A running call still gets an answer."""
        context = self._live.pop(context_id, None)
        if context is None:
            return False
        context.live = False
        self._quota.remove_context(context.window.memory)
        self._on_end(context_id)
        return True

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


def _start_timer(context: ServedContext, now: float) -> None:
    # Never backwards, even if the wall clock is set back: the heap's entry must not be due after the context.
    context.deadline = max(context.deadline, now + context.ttl)


def _suffix(number: int) -> str:
    characters = ""
    for _ in range(5):
        number, digit = divmod(number, len(_DIGITS))
        characters = _DIGITS[digit] + characters
    return characters


def _stops(request: ChatRequest) -> tuple[str, ...]:
    stop = _or(request.stop, ())
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _usage(prompt: int, completion: int, cached: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )
