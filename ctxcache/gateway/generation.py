"""The engine at work on one chat: a task for each call of the engine, one reader takes the fragments in batches.

An engine is called once for each reply, or once for all of them (`ManagedEngine.all_replies`). A single call of an
engine that yields batches (`ManagedEngine.batches`) needs no task: the reader runs the engine, one batch at a time, and
no second task wakes for each chunk.

The reader gets every fragment written since the last `take`, so an engine that is faster than the client's connection
costs few writes, and a slow engine is passed on piece by piece. Fragments that wait are bounded: a writer `ahead`
fragments before the reader waits, and so, through the connection's back-pressure, waits for the client.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import reduce
from typing import Any, Final

import attrs

from ..errors import APIStatusError
from ..models import CompletionTokensDetails, Usage
from .engines import Engine, Piece, Prompt
from .rules.pieces import Fragment
from .rules.refusals import engine_failed
from .rules.served import AcceptedChat

__all__ = ["Generation"]

_log: Final = logging.getLogger("ctxcache.gateway")
_UNBROKEN: Final = 256  # pieces or lists in a row before other tasks run, from an engine that never waits


class Generation:
    """The fragments of one chat's replies, used as `async with`: the end of the block cancels the writers and waits.

    Args:
        engine: writes the replies.
        chat: the accepted chat, whose replies are fed.
        ahead: how many fragments may wait for the reader.
        client: `Prompt.client`.

    Attributes:
        done: whether every reply has ended and every fragment was taken.
    """

    def __init__(self, engine: Engine, chat: AcceptedChat, ahead: int, client: str = "") -> None:
        self._engine: Final = engine
        self._chat: Final = chat
        self._ahead: Final = ahead
        self._client: Final = client
        replies = range(len(chat.replies))
        self._all_replies: Final[bool] = getattr(engine, "all_replies", False)
        self._calls: Final = [replies] if self._all_replies else [(index,) for index in replies]
        self._usage: Final[dict[int, Usage]] = {}  # by the first reply of the call
        self._text_only = True
        self._fragments: list[Fragment] = []
        self._written: Final = asyncio.Event()
        self._read: Final = asyncio.Event()
        self._running = len(self._calls)
        self._failure: APIStatusError | None = None
        self.done = False
        self._tasks: list[asyncio.Task[None]] = []
        self._batches: AsyncIterator[Any] | None = None  # of the engine that the reader runs
        self._batches_read = 0
        self._reader: asyncio.Task[Any] | None = None  # None where tasks of their own run the engine
        self._in_batch = False

    async def __aenter__(self) -> "Generation":
        if getattr(self._engine, "batches", False) and len(self._calls) == 1 and self._chat.max_tokens > 0:
            self._reader = asyncio.current_task()
        else:
            self._tasks = [asyncio.create_task(self._write(call)) for call in self._calls]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._batches is not None:
            try:
                await _close(self._batches)
            except Exception:
                _log.exception("the engine failed")

    def interrupt(self, failure: APIStatusError) -> None:
        """End the replies that are being written; the failure follows the fragments written before."""
        if not self._running:
            return
        self._failure = failure
        self._written.set()
        for task in self._tasks:
            task.cancel()
        if self._in_batch and self._reader is not None:
            self._reader.cancel()

    async def take(self) -> list[Fragment]:
        """Return the waiting fragments, at least one; not to be called when `done`.

        Raises:
            APIStatusError: the engine failed, and every fragment written before was taken.
        """
        while not self._fragments:
            if self._failure is not None:
                raise self._failure
            if self._reader is not None:
                self._in_batch = True
                try:
                    self._take(self._calls[0], await self._next_batch())
                except BaseException as error:
                    self._batch_failed(error)
                finally:
                    self._in_batch = False
            else:
                self._written.clear()
                await self._written.wait()
        fragments, self._fragments = self._fragments, []
        if self._tasks:
            self._read.set()
        self.done = not self._running and self._failure is None
        return fragments

    def usage(self, counted: Usage) -> Usage:
        """Return the usage of the answer: the engine's own, or `counted` by the gateway.

        The cached tokens of `counted` are for engines of text alone: an engine that yields a `Piece` tells its own.
        """
        if len(self._usage) < len(self._calls):
            return counted if self._text_only else attrs.evolve(counted, prompt_tokens_details=None)
        first, *others = (self._usage[call[0]] for call in self._calls)
        return reduce(_add_reply, others, first)

    # --- the engine, run by the reader

    async def _next_batch(self) -> Any:
        if self._batches is None:  # not before the first `take`, which handles the failure of an engine to begin
            self._batches = self._engine.generate(self._prompt(self._calls[0]))
        self._batches_read += 1
        if self._batches_read % _UNBROKEN == 0:
            await asyncio.sleep(0)
        return await anext(self._batches)

    def _batch_failed(self, error: BaseException) -> None:
        """Handle what the engine raised in the reader's task, its end included."""
        if isinstance(error, StopAsyncIteration):
            self._end(self._calls[0])
            self._running = 0
            return
        if isinstance(error, asyncio.CancelledError) and self._reader is not None:
            interrupted = self._failure is not None
            ours = not (self._reader.uncancel() if interrupted else self._reader.cancelling())  # else the client left
        else:
            ours = isinstance(error, Exception)
        if not ours:
            raise error
        self._fail(error)

    # --- the writers

    async def _write(self, call: Sequence[int]) -> None:
        try:
            if self._chat.max_tokens > 0:
                await self._run_engine(call)
            self._end(call)
        except Exception as error:
            self._fail(error)
        except asyncio.CancelledError as error:
            self._fail(error)  # by the engine, or since nobody reads any more
            raise
        finally:
            self._running -= 1
            self._written.set()

    def _end(self, call: Sequence[int]) -> None:
        """End the replies of a call."""
        for index in call:
            if text := self._chat.replies[index].end():
                self._fragments.append((index, text))
            self._fragments.append((index, None))

    def _fail(self, error: BaseException) -> None:
        """Note the refusal that `take` raises when the earlier fragments were taken."""
        if not isinstance(error, APIStatusError | asyncio.CancelledError):
            _log.error("the engine failed", exc_info=error)
        if self._failure is None:
            self._failure = error if isinstance(error, APIStatusError) else engine_failed()

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
                    self._take(call, piece if isinstance(piece, list) else (piece,))
                    self._written.set()
                count += 1
                if len(self._fragments) >= self._ahead:
                    self._read.clear()
                    await self._read.wait()
                elif count % unbroken == 0:
                    await asyncio.sleep(0)
        finally:
            await _close(pieces)

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

    def _take(self, call: Sequence[int], pieces: Iterable[object]) -> None:
        """Take pieces that the gateway does not cut."""
        self._text_only = False
        for piece in pieces:
            if not isinstance(piece, Piece):
                raise TypeError(f"an engine must yield str, Piece or a list of Piece, got {type(piece).__name__}")
            index = piece.index if self._all_replies else call[0]
            if index not in call:
                raise IndexError(f"Piece.index must be that of one of {len(call)} replies, got {index}")
            text = piece.text
            if text and not text.isascii():
                text.encode()
            if piece.usage is not None:
                self._usage[call[0]] = piece.usage
            shown = self._chat.replies[index].take(piece)
            if isinstance(shown, str):
                self._fragments.append((index, shown))
            else:
                self._fragments.extend((index, part) for part in shown)


async def _close(pieces: AsyncIterator[Any]) -> None:
    close = getattr(pieces, "aclose", None)  # not every async iterator has the method
    if close is not None:
        await close()


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
