"""The contexts and what may be done with them: the gateway's rules, pure.

Time and randomness are parameters. A context ends by its ttl alone, an idle timer that starts when the context is made
and starts anew with every use. A use is a call that was accepted (one that passed every check; a refused call is none):
no context expires while one runs, and the timer starts anew when it ends, answered or not.

A session context takes one call at a time; it is busy from the call's acceptance until `AcceptedChat.complete` or
`AcceptedChat.abandon`. Only `complete` stores a turn. A common prefix never changes and takes any number of calls.

What expired is found through a heap of due times with one entry a context. An entry is not moved when its timer starts
anew but put back when it comes up: O(log n) a context and ttl, nothing is scanned.
"""

import heapq
from collections.abc import Callable, Mapping
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
    assistant,
)
from .refusals import bad_request, busy, context_not_found, full, model_not_found
from .reply import Reply
from .tokens import message_tokens
from .window import DEFAULT_STRATEGY, Plan, Window

__all__ = ["MAX_CONTEXTS", "MAX_REPLIES", "AcceptedChat", "ContextTable", "ServedContext"]

MAX_CONTEXTS: Final = 100_000
MAX_REPLIES: Final = 128  # the documents give `n` no bound; this is OpenAI's
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SUFFIXES: Final = len(_DIGITS) ** 5

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class ServedContext:
    """One context.

    Attributes:
        id, model, mode, ttl: as created; ttl in seconds.
        window: its messages.
        deadline: when it expires, seconds by the clock of `ContextTable`.
        running: how many calls run on it.
    """

    id: str
    model: str
    mode: str
    ttl: int
    window: Window
    deadline: float
    running: int = 0

    @property
    def usage(self) -> Usage:
        """What making it was counted at (API reference: nothing completed, nothing cached)."""
        return _usage(self.window.initial_tokens, 0, 0)


@attrs.define(eq=False, kw_only=True)
class AcceptedChat:
    """An accepted chat; it holds its context until `complete` or `abandon`.

    Attributes:
        request: what was asked.
        context: the context it runs on.
        held: the messages of the context it sees.
        plan: how it fits the window.
        replies: one for each of `n`, to be fed.
    """

    request: ChatRequest
    context: ServedContext
    held: tuple[Message, ...]
    plan: Plan
    replies: tuple[Reply, ...]
    _clock: Callable[[], float]
    _open: bool = attrs.field(default=True, init=False)

    @property
    def question(self) -> tuple[Message, ...]:
        """The messages that came with the call."""
        return self.request.messages

    def complete(self) -> Usage:
        """Every reply ended: store the turn where the context is a session, the first of `n` replies as its answer."""
        rolled = False
        if self.context.mode == "session" and self.plan.room:  # without room there was no reply
            rolled = self.context.window.store((*self.question, assistant(self.replies[0].text)))
        self.abandon()
        prompt = self.plan.kept + message_tokens(self.question)
        completion = sum(reply.tokens for reply in self.replies)
        return _usage(prompt, completion, 0 if rolled else self.plan.kept)

    def abandon(self) -> None:
        """Free the context and store nothing; after `complete`, nothing is left to do."""
        if self._open:
            self._open = False
            self.context.running -= 1
            _start_timer(self.context, self._clock())


class ContextTable:
    """Every context of one gateway.

    Args:
        models: the models served, each with its context window in tokens.
        clock: the wall clock, Unix seconds.
        randbelow: a random whole number below its argument, as `secrets.randbelow`.
        most: how many contexts there may be at once.
    """

    def __init__(
        self,
        models: Mapping[str, int],
        clock: Callable[[], float],
        randbelow: Callable[[int], int],
        most: int = MAX_CONTEXTS,
    ) -> None:
        self.models: Final = dict(models)
        self._clock: Final = clock
        self._randbelow: Final = randbelow
        self._most: Final = most
        self._live: dict[str, ServedContext] = {}
        self._due: list[tuple[float, str]] = []
        self._second = ""
        self._given: set[str] = set()  # ids given in that second

    def create(self, request: ContextRequest) -> ServedContext:
        """Make a context.

        Raises:
            APIStatusError: for an unknown model, messages that fill the window, or a context too many.
        """
        now = self._clock()
        self._remove_expired(now)
        size = self._window_of(request.model)
        if len(self._live) >= self._most:
            raise full(self._most)
        mode = _or(request.mode, "session")
        ttl = _or(request.ttl, DEFAULT_TTL)
        strategy = _or(request.truncation_strategy, DEFAULT_STRATEGY) if mode == "session" else None
        window = Window(size, strategy, request.messages)
        context = ServedContext(
            id=self._new_id(now), model=request.model, mode=mode, ttl=ttl, window=window, deadline=now + ttl
        )
        self._live[context.id] = context
        heapq.heappush(self._due, (context.deadline, context.id))
        return context

    def begin(self, request: ChatRequest) -> AcceptedChat:
        """Accept a chat, or refuse it.

        Raises:
            APIStatusError: for an unknown model or context, another model than the context's, a session that is busy,
                and a question that does not fit the window; in this order.
        """
        now = self._clock()
        self._remove_expired(now)
        self._window_of(request.model)
        context = self._live.get(request.context_id)
        if context is None:
            raise context_not_found(request.context_id)
        if request.model != context.model:
            raise bad_request("model", f"The context was made for the model {context.model}.")
        replies = _or(request.n, 1)
        if replies > MAX_REPLIES:
            raise bad_request("n", f"The parameter n must be a whole number in [1, {MAX_REPLIES}], got {replies}.")
        if context.mode == "session" and context.running:
            raise busy()
        plan = context.window.plan(message_tokens(request.messages))
        context.running += 1
        limit = min(plan.room, _or(request.max_tokens, plan.room))
        return AcceptedChat(
            request=request,
            context=context,
            held=context.window.messages(plan.dropped),
            plan=plan,
            replies=tuple(Reply(_stops(request), limit) for _ in range(replies)),
            clock=self._clock,
        )

    def get(self, context_id: str) -> ServedContext | None:
        """Return a context, or None where there is none (any more). Looking is no use: the timer runs on."""
        self._remove_expired(self._clock())
        return self._live.get(context_id)

    def expire(self, context_id: str) -> bool:
        """Remove a context now, as its ttl would; False where there is none. A running call still gets its answer."""
        return self._live.pop(context_id, None) is not None

    def _window_of(self, model: str) -> int:
        if model not in self.models:
            raise model_not_found(model)
        return self.models[model]

    def _remove_expired(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, context_id = heapq.heappop(self._due)
            context = self._live.get(context_id)
            if context is None:
                continue  # removed by hand
            if context.running:
                heapq.heappush(self._due, (now + context.ttl, context_id))
            elif context.deadline > now:
                heapq.heappush(self._due, (context.deadline, context_id))
            else:
                del self._live[context_id]

    def _new_id(self, now: float) -> str:
        """`ctx-<yyyymmddHHMMSS>-<5 characters>` (API reference); no two alike, even where randomness repeats itself."""
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
    # Never backwards, where the wall clock is: the heap's entry must not be due after the context.
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
