"""A context in memory, and an accepted chat on it."""

from collections.abc import Callable, Sequence

import attrs

from ...models import ChatRequest, Message, PromptTokensDetails, Usage
from .quota import Quota
from .reply import Reply
from .sizes import SizedMessage, total_tokens
from .window import Plan, Window

__all__ = ["AcceptedChat", "ServedContext"]


@attrs.define(eq=False, kw_only=True)
class ServedContext:
    """One context.

    Attributes:
        id, model, mode, ttl: as created; ttl in seconds.
        window: the messages held.
        deadline: when the idle timer ends, Unix seconds by the clock of `ContextTable`.
        running: the number of calls under way.
        live: whether the context is still in the table.
        elsewhere: whether another gateway on the same state has a call under way.
        owner: `Client.owner` of the client that created the context.
    """

    id: str
    model: str
    mode: str
    ttl: int
    window: Window
    deadline: float
    running: int = 0
    live: bool = True
    elsewhere: bool = False
    owner: str = ""

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
    _turn: tuple[SizedMessage, ...] | None = attrs.field(default=None, init=False)

    @property
    def question(self) -> tuple[Message, ...]:
        """The request's messages."""
        return self.request.messages

    @property
    def prompt_tokens(self) -> int:
        """The tokens that the engine sees, of context and question, by the gateway's own count."""
        return self.plan.kept + total_tokens(self.sized)

    @property
    def completion_tokens(self) -> int:
        """The tokens of the replies so far, by the gateway's own count."""
        return sum(reply.tokens for reply in self.replies)

    def turn(self) -> tuple[SizedMessage, ...]:
        """Return what `complete` is to store: with every reply ended, the question and the first of `n` replies.

        Nothing for a prefix, and where the window had no room for a reply.
        """
        if self._turn is None:
            self._turn = ()
            if self.context.mode == "session" and self.plan.room:
                reply = self.replies[0]
                tokens = None if reply.reasoning else reply.tokens  # reasoning is not stored
                self._turn = (*self.sized, SizedMessage.of(reply.message, tokens))
        return self._turn

    def complete(self) -> Usage:
        """End the call with every reply ended, and store the turn.

        Returns:
            The usage by the gateway's own count, as if every token of the context had been cached.
        """
        turn = self.turn()
        rolled = bool(turn) and self._store(turn)
        self.abandon()
        return _usage(self.prompt_tokens, self.completion_tokens, 0 if rolled else self.plan.kept)

    def _store(self, turn: Sequence[SizedMessage]) -> bool:
        window = self.context.window
        before = window.memory
        rolled = window.store(turn)
        if self.context.live:
            self._quota.shift(window.memory - before)
        return rolled

    def abandon(self) -> None:
        """Free the context and store nothing. No effect after `complete`."""
        if self._open:
            self._open = False
            self._quota.shift(-self._reserved)
            self.context.running -= 1
            _start_timer(self.context, self._clock())


def _start_timer(context: ServedContext, now: float) -> None:
    # Never backwards, even if the wall clock is set back: the heap's entry must not be due after the context.
    context.deadline = max(context.deadline, now + context.ttl)


def _usage(prompt: int, completion: int, cached: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )
