"""The engine at work on one call: a task for each reply writes, one reader takes what was written, in batches.

The reader gets everything that was written since it last looked, so an engine that is faster than the client's
connection costs few writes, and a slow one is passed on piece by piece. What waits is bounded: a writer that is ahead
by `ahead` pieces waits for the reader, and so, through the connection's back-pressure, for the client.
"""

import asyncio
import logging
from typing import Final

from ..errors import APIStatusError
from .engines import Engine, Prompt
from .rules.refusals import engine_failed
from .rules.reply import Fragment, Reply
from .rules.table import AcceptedChat

__all__ = ["Generation"]

_log: Final = logging.getLogger("ctxcache.gateway")
_UNBROKEN: Final = 256  # pieces without a look at the event loop, from an engine that never waits


class Generation:
    """Use as `async with`: leaving it ends the writers."""

    def __init__(self, engine: Engine, call: AcceptedChat, ahead: int) -> None:
        self._engine: Final = engine
        self._call: Final = call
        self._ahead: Final = ahead
        self._items: list[Fragment] = []
        self._written: Final = asyncio.Event()
        self._read: Final = asyncio.Event()
        self._running = len(call.replies)
        self._failure: APIStatusError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Generation":
        self._tasks = [asyncio.create_task(self._write(*reply)) for reply in enumerate(self._call.replies)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def done(self) -> bool:
        """Whether every reply has ended and was taken."""
        return not self._running and not self._items and self._failure is None

    async def take(self) -> list[Fragment]:
        """Return what was written and not yet taken, waiting for at least one item; not to be called when `done`.

        Raises:
            APIStatusError: the engine failed. What it wrote before was taken before.
        """
        while not self._items:
            if self._failure is not None:
                raise self._failure
            self._written.clear()
            await self._written.wait()
        items, self._items = self._items, []
        self._read.set()
        return items

    async def _write(self, index: int, reply: Reply) -> None:
        try:
            if reply.finish_reason is None:
                await self._run_engine(index, reply)
            if text := reply.end():
                self._items.append((index, text))
            self._items.append((index, None))
        except APIStatusError as error:
            self._failure = error
        except Exception:
            _log.exception("the engine failed")
            self._failure = engine_failed()
        except asyncio.CancelledError:
            self._failure = engine_failed()  # the engine cancelled itself, or nobody reads any more
            raise
        finally:
            self._running -= 1
            self._written.set()

    async def _run_engine(self, index: int, reply: Reply) -> None:
        call = self._call
        pieces = self._engine.generate(
            Prompt(
                request=call.request,
                context=call.held,
                context_tokens=call.plan.kept,
                question=call.question,
                index=index,
            )
        )
        # Several replies take turns piece by piece, as a model's would.
        unbroken = 1 if len(call.replies) > 1 else _UNBROKEN
        count = 0
        try:
            async for piece in pieces:
                if not isinstance(piece, str):
                    raise TypeError(f"an engine's pieces are str, this is {type(piece).__name__}")
                if not piece.isascii():
                    piece.encode()  # a lone surrogate, which no JSON can carry, fails here and not in mid-answer
                if text := reply.feed(piece):
                    self._items.append((index, text))
                    self._written.set()
                if reply.finish_reason:
                    return
                count += 1
                if len(self._items) >= self._ahead:
                    self._read.clear()
                    await self._read.wait()
                elif count % unbroken == 0:
                    await asyncio.sleep(0)
        finally:
            close = getattr(pieces, "aclose", None)  # an iterator need not have it
            if close is not None:
                await close()
