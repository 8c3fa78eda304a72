"""The lines that a worker keeps between batches: one for each process, event loop and asker.

A line ends with the event loop: `asyncio.run` and its like, Dask's workers among them, cancel all tasks at the end, and
the line's task closes the session. Ray leaves its event loop running in a thread until the process ends: the lines
there are closed by `atexit`.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs

from ..client.resources.parameters import ChatParameters
from ..client.session import AsyncSession
from ..errors import CtxCacheError
from ..managed import Map, Prefix
from ..models import Message
from .line import Line
from .store_url import store_of

__all__ = ["Settings", "background_loop", "line_for"]

_CLOSE_SECONDS: Final = 5.0


@attrs.frozen(repr=False)
class Settings:
    """All that a worker needs, but for the key: pickled into task graphs."""

    model: str
    messages: tuple[Message, ...]
    ttl: Any
    store: str | None
    base_url: str | None
    concurrency: int
    chat: ChatParameters


_Lines = dict[str, Line]
_lines: Final[dict[asyncio.AbstractEventLoop, tuple[int, _Lines]]] = {}  # with the process: a fork copies the object
_background: tuple[int, asyncio.AbstractEventLoop] | None = None
_lock: Final = threading.Lock()


def line_for(key: str, settings: Settings) -> Line:
    """Return the line of these settings in this event loop, opened unless one is open.

    Args:
        key: the same for the copies of an asker.
        settings: what the session, the store and the prefix are made from.
    """
    loop = asyncio.get_running_loop()
    for other in list(_lines):
        if other.is_closed():
            _lines.pop(other, None)
    _, lines = _lines.setdefault(loop, (os.getpid(), {}))
    line = lines.get(key)
    if line is None or line.ended:
        line = lines[key] = Line(partial(_start, settings))
    return line


def background_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop in a thread of this process, for callers that have none."""
    global _background
    with _lock:
        if _background is None or _background[0] != os.getpid():  # a fork copies no thread
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="ctxcache-cluster", daemon=True).start()
            _background = os.getpid(), loop
        return _background[1]


@asynccontextmanager
async def _start(settings: Settings, questions: AsyncIterable[Any]) -> AsyncIterator[Map[Any]]:
    """Open the store, the session and the map."""
    async with AsyncExitStack() as stack:
        store = store_of(settings.store)
        if store is not None:
            await stack.enter_async_context(store)
        session = await stack.enter_async_context(AsyncSession(base_url=settings.base_url))
        prefix = Prefix(session, model=settings.model, messages=settings.messages, ttl=settings.ttl, store=store)
        # The store is at rest before the first answer: a process that ends right after that leaves nothing half done.
        with suppress(CtxCacheError):  # the questions will tell
            await prefix.warm()
        yield await stack.enter_async_context(prefix.map(questions, concurrency=settings.concurrency, **settings.chat))


@atexit.register
def _close_lines() -> None:
    """Close the lines whose event loop did not, at the end of the process."""
    for loop, (process, lines) in list(_lines.items()):
        if process == os.getpid() and not loop.is_closed():
            closing = _close_all(lines)
            with suppress(Exception):
                if loop.is_running():
                    asyncio.run_coroutine_threadsafe(closing, loop).result(_CLOSE_SECONDS)
                else:
                    loop.run_until_complete(closing)


async def _close_all(lines: _Lines) -> None:
    for line in lines.values():
        await line.aclose()
