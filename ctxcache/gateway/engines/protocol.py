"""The protocol of an engine, which writes the answers.

An engine of your own is a class with one method, an async generator::

    class Shouting:
        async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
            for word in prompt.question[-1].text.split():
                await asyncio.sleep(0.05)
                yield word.upper() + " "

    async with Gateway(engine=Shouting()) as gateway: ...

An engine yields two kinds of pieces:

- `str`: text that the gateway cuts (at `max_tokens`, a stop string, the end of the window) and counts. To an engine of
  text alone the gateway plays the service: every token of the context counts as cached.
- `Piece`: text, reasoning, tool calls, log probabilities, finish reason and usage of a model that keeps the limits of
  the `Prompt` itself. The gateway passes a piece on as it is, and claims no cached tokens but those reported. A list of
  such pieces is written to the client at once.

Contexts, their windows, JSON and HTTP are left to the gateway for every engine.
"""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import attrs

from ...models import ChatRequest, Message
from ..rules.pieces import Piece

__all__ = ["Engine", "ManagedEngine", "NewContext", "Piece", "Prompt"]


@attrs.frozen(kw_only=True)
class NewContext:
    """A context that was just created, as `prepare` gets it.

    Attributes:
        id, model, mode: as in the answer of the create.
        messages: the initial messages.
        tokens: the tokens of `messages`, by the gateway's count.
        client: as in `Prompt`.
    """

    id: str
    model: str
    mode: str
    messages: tuple[Message, ...]
    tokens: int
    client: str = ""


@attrs.frozen(kw_only=True)
class Prompt:
    """The input for one reply, or for all replies of an engine with `all_replies`.

    Attributes:
        request: the whole chat request (`temperature`, `tools`, …; fields without a name of their own in `extra`).
        context: the context's messages within the window, oldest first.
        context_tokens: the tokens of `context`, by the gateway's count.
        question: the request's messages.
        max_tokens: the most tokens of a reply: the request's `max_tokens`, within the room that the window leaves.
        stop: the stop strings.
        index: the number of the reply among the `n`, from 0.
        replies: how many replies to write: 1, or `n` for an engine with `all_replies`.
        client: a name for the client's key, from which the key cannot be told: the same for every call with that key.
    """

    request: ChatRequest
    context: tuple[Message, ...]
    context_tokens: int
    question: tuple[Message, ...]
    max_tokens: int = sys.maxsize
    stop: tuple[str, ...] = ()
    index: int = 0
    replies: int = 1
    client: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, those of the context first."""
        return self.context + self.question


class Engine(Protocol):
    """Writes replies. `ManagedEngine` has what an engine may have beside `generate`."""

    def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece | list[Piece]]:
        """Write a reply, as an async iterator of pieces of any size; an async generator will do.

        The gateway calls `generate` once for each of the `n` replies, concurrently, and closes the iterator early
        (cancelled, then `aclose` if there is one) when the reply is cut or the client leaves. An `APIStatusError`
        raised here is sent to the client; any other exception is logged and sent as a 500 `InternalServerError`.

        The usage of an answer is what the engine reports (`Piece.usage`), or else the gateway's count.
        """
        ...


class ManagedEngine(Engine, Protocol):
    """An engine that holds something: processes, connections, a cache. Each member is optional, and found by name.

    Attributes:
        all_replies: True: one call of `generate` writes all `prompt.replies` replies, and `Piece.index` tells them
            apart. Default False.
        batches: True: `generate` yields lists of `Piece`. The pieces of a list are written to the client at once, and
            only then the next list is asked for: for an engine that relays, and has a list from each read of a socket.
            Default False.
    """

    all_replies: bool
    batches: bool

    async def start(self) -> None:
        """Get ready, before the gateway listens. An exception ends the start of the gateway."""
        ...

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> Sequence[int]:
        """Count the tokens of each message of a request, in place of the gateway's rule, which needs no model.

        The counts decide what fits the window and what a session drops; usage is told by pieces. Replies are stored
        by the gateway's rule. What is raised here is answered as what `generate` raises.
        """
        ...

    async def prepare(self, context: NewContext) -> None:
        """Warm up for a context, before the answer of the create is sent.

        The create fails with what is raised here, as a chat does with what `generate` raises, and the context ends. So
        an engine raises what the next chat would meet too (no such model, too many tokens) and keeps quiet about the
        rest: a cold context is still a context.
        """
        ...

    def resume(self, modes: Mapping[str, str]) -> None:
        """Take up the contexts that the gateway's state has kept: the mode of each by id, all that live.

        Called after `start`, by a gateway with a state of its own in a file.
        """
        ...

    def forget(self, context_id: str) -> None:
        """Let go of a context that has ended. To return at once; a chat may still be running on the context.

        Expired contexts are noticed when the next request comes in.
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything: the gateway closes, and may be started again.

        Called after the last `generate`, and after a `start` that failed or was cancelled.
        """
        ...
