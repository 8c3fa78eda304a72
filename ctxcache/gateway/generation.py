"""The engine at work on one chat: a task writes each reply, one reader takes the fragments in batches.

The reader gets every fragment written since the last look, so an engine that is faster than the client's connection
costs few writes, and a slow engine is passed on piece by piece. Fragments that wait are bounded: a writer `ahead`
fragments before the reader waits, and so, through the connection's back-pressure, waits for the client.
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
_UNBROKEN: Final = 256  # pieces in a row before other tasks run, from an engine that never waits


class Generation:
    """The fragments of one chat's replies, used as `async with`: the end of the block cancels the writers and waits.

    Args:
        engine: writes the replies.
        chat: the accepted chat, whose replies are fed.
        ahead: how many fragments may wait for the reader.
    """

    def __init__(self, engine: Engine, chat: AcceptedChat, ahead: int) -> None:
        self._engine: Final = engine
        self._chat: Final = chat
        self._ahead: Final = ahead
        self._fragments: list[Fragment] = []
        self._written: Final = asyncio.Event()
        self._read: Final = asyncio.Event()
        self._running = len(chat.replies)
        self._failure: APIStatusError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Generation":
        self._tasks = [asyncio.create_task(self._write(*reply)) for reply in enumerate(self._chat.replies)]
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

    async def _write(self, index: int, reply: Reply) -> None:
        try:
            if reply.finish_reason is None:
                await self._run_engine(index, reply)
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

    async def _run_engine(self, index: int, reply: Reply) -> None:
        chat = self._chat
        pieces = self._engine.generate(
            Prompt(
                request=chat.request,
                context=chat.held,
                context_tokens=chat.plan.kept,
                question=chat.question,
                index=index,
            )
        )
        # Several replies alternate piece by piece, as a model's do.
        unbroken = 1 if len(chat.replies) > 1 else _UNBROKEN
        count = 0
        try:
            async for piece in pieces:
                if not isinstance(piece, str):
                    raise TypeError(f"an engine must yield str, got {type(piece).__name__}")
                if not piece.isascii():
                    piece.encode()  # a lone surrogate, which JSON cannot carry, fails here and not in mid-answer
                if text := reply.feed(piece):
                    self._fragments.append((index, text))
                    self._written.set()
                if reply.finish_reason:
                    return
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
