"""The engine at work on one chat: a task for each call of the engine, one reader takes the fragments in batches.

An engine is called once for each reply, or once for all of them (`ManagedEngine.all_replies`).

The reader gets every fragment written since the last look, so an engine that is faster than the client's connection
costs few writes, and a slow engine is passed on piece by piece. Fragments that wait are bounded: a writer `ahead`
fragments before the reader waits, and so, through the connection's back-pressure, waits for the client.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import reduce
from typing import Final

import attrs

from ..errors import APIStatusError
from ..models import CompletionTokensDetails, Usage
from .engines import Engine, Piece, Prompt
from .rules.pieces import Fragment
from .rules.refusals import engine_failed
from .rules.table import AcceptedChat

__all__ = ["Generation"]

_log: Final = logging.getLogger("ctxcache.gateway")
_UNBROKEN: Final = 256  # pieces in a row before other tasks run, from an engine that never waits


class Generation:
    """The fragments of one chat's replies, used as `async with`: the end of the block cancels the writers and waits.

    Args:
        engine: writes the replies.
        chat: the accepted chat, whose replies are fed.
        ahead: how many fragments may wait for the reader.
        client: `Prompt.client`.
    """

    def __init__(self, engine: Engine, chat: AcceptedChat, ahead: int, client: str = "") -> None:
        self._engine: Final = engine
        self._chat: Final = chat
        self._ahead: Final = ahead
        self._client: Final = client
        replies = range(len(chat.replies))
        self._calls: Final = [replies] if getattr(engine, "all_replies", False) else [(index,) for index in replies]
        self._usage: Final[dict[int, Usage]] = {}  # by the first reply of the call
        self._text_only = True
        self._fragments: list[Fragment] = []
        self._written: Final = asyncio.Event()
        self._read: Final = asyncio.Event()
        self._running = len(self._calls)
        self._failure: APIStatusError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Generation":
        self._tasks = [asyncio.create_task(self._write(call)) for call in self._calls]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def done(self) -> bool:
        """Whether every reply has ended and every fragment was taken."""
        return not self._running and not self._fragments and self._failure is None

    async def take(self) -> list[Fragment]:
        """Return the waiting fragments, at least one; not to be called when `done`.

        Raises:
            APIStatusError: the engine failed, and every fragment written before was taken.
        """
        while not self._fragments:
            if self._failure is not None:
                raise self._failure
            self._written.clear()
            await self._written.wait()
        fragments, self._fragments = self._fragments, []
        self._read.set()
        return fragments

    def usage(self, counted: Usage) -> Usage:
        """Return the usage of the answer: the engine's own, or `counted` by the gateway.

        The cached tokens of `counted` are for engines of text alone: an engine that yields a `Piece` tells its own.
        """
        if len(self._usage) < len(self._calls):
            return counted if self._text_only else attrs.evolve(counted, prompt_tokens_details=None)
        first, *others = (self._usage[call[0]] for call in self._calls)
        return reduce(_add_reply, others, first)

    # --- the writers

    async def _write(self, call: Sequence[int]) -> None:
        replies = [self._chat.replies[index] for index in call]
        try:
            if self._chat.max_tokens > 0:
                await self._run_engine(call)
            for index, reply in zip(call, replies, strict=True):
                if text := reply.end():
                    self._fragments.append((index, text))
                self._fragments.append((index, None))
        except APIStatusError as error:
            self._failure = error
        except Exception:
            _log.exception("the engine failed")
            self._failure = engine_failed()
        except asyncio.CancelledError:
            self._failure = engine_failed()  # by the engine, or since nobody reads any more
            raise
        finally:
            self._running -= 1
            self._written.set()

    async def _run_engine(self, call: Sequence[int]) -> None:
        pieces = self._engine.generate(self._prompt(call))
        index = call[0]
        reply = self._chat.replies[index]  # of every `str`
        # Several calls alternate piece by piece, as a model's do.
        unbroken = 1 if len(self._calls) > 1 else _UNBROKEN
        count = 0
        try:
            async for piece in pieces:
                if isinstance(piece, str):
                    if not piece.isascii():
                        piece.encode()  # a lone surrogate, which JSON cannot carry, fails here and not in mid-answer
                    if text := reply.feed(piece):
                        self._fragments.append((index, text))
                        self._written.set()
                    if reply.finish_reason and len(call) == 1:
                        return
                else:
                    self._take(call, piece)
                count += 1
                if len(self._fragments) >= self._ahead:
                    self._read.clear()
                    await self._read.wait()
                elif count % unbroken == 0:
                    await asyncio.sleep(0)
        finally:
            close = getattr(pieces, "aclose", None)  # not every async iterator has the method
            if close is not None:
                await close()

    def _prompt(self, call: Sequence[int]) -> Prompt:
        chat = self._chat
        return Prompt(
            request=chat.request,
            context=chat.held,
            context_tokens=chat.plan.kept,
            question=chat.question,
            max_tokens=chat.max_tokens,
            stop=chat.stops,
            index=call[0],
            replies=len(call),
            client=self._client,
        )

    def _take(self, call: Sequence[int], piece: object) -> None:
        """Take a piece that the gateway does not cut."""
        if not isinstance(piece, Piece):
            raise TypeError(f"an engine must yield str or Piece, got {type(piece).__name__}")
        self._text_only = False
        index = call[0] if len(call) == 1 else piece.index
        if index not in call:
            raise IndexError(f"Piece.index must be that of one of {len(call)} replies, got {index}")
        if piece.text and not piece.text.isascii():
            piece.text.encode()
        if piece.usage is not None:
            self._usage[call[0]] = piece.usage
        for shown in self._chat.replies[index].take(piece):
            self._fragments.append((index, shown))
            self._written.set()


def _add_reply(usage: Usage, reply: Usage) -> Usage:
    """Add the usage of a further reply to the same prompt: the prompt counts once."""
    details = reply.completion_tokens_details and CompletionTokensDetails(
        reasoning_tokens=usage.reasoning_tokens + reply.reasoning_tokens
    )
    return attrs.evolve(
        usage,
        completion_tokens=usage.completion_tokens + reply.completion_tokens,
        total_tokens=usage.total_tokens + reply.completion_tokens,
        completion_tokens_details=details or usage.completion_tokens_details,
    )
