"""Keeps a llama.cpp server running: starts another when one ends or hangs.

A server that ran for `Supervision.steady` seconds is replaced at once; after a shorter life, and after a failed start,
the wait doubles each time. Calls wait for the new server, up to a limit.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import attrs

from ....errors import CtxCacheError, InternalServerError
from .server import LlamaServer

__all__ = ["Supervision", "Supervisor"]

_log: Final = logging.getLogger("ctxcache.gateway")


@attrs.frozen(kw_only=True)
class Supervision:
    """Times, in seconds.

    Attributes:
        probe: between two looks whether a server still answers.
        hung: without a sign of life, after which a server is killed.
        steady: the life after which an end is no reason to wait.
        first_delay, max_delay: the waits before further starts.
        patience: the longest wait of a call for a server.
        clock, sleep: monotonic time, and a wait of so many.
    """

    probe: float = 5.0
    hung: float = 30.0
    steady: float = 60.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    patience: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class Supervisor:
    """Starts servers, one after the other.

    Args:
        start: starts a server.
        times: how long everything takes.
    """

    def __init__(self, start: Callable[[], Awaitable[LlamaServer]], times: Supervision) -> None:
        self._start: Final = start
        self._times: Final = times
        self._server: LlamaServer | None = None
        self._ending = False
        self._began = 0.0
        self._adopted = asyncio.Event()  # for those who wait for the next server
        self._watcher: asyncio.Task[None] | None = None

    @property
    def running(self) -> LlamaServer | None:
        """The running server; None while there is none."""
        return None if self._ending else self._server

    async def start(self) -> LlamaServer:
        """Start the first server, whose failure is the caller's; watch from then on."""
        server = await self._start()
        self._adopt(server)
        self._watcher = asyncio.create_task(self._watch(server))
        return server

    async def server(self, after: LlamaServer | None = None) -> LlamaServer:
        """Return the running server, but not `after`; wait while another is being started.

        Raises:
            InternalServerError: there is none within `patience` (503).
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.patience):
                while (server := self.running) is None or server is after:
                    await self._adopted.wait()
                return server
        message = "The model is being started again."
        raise InternalServerError(message, status=503, code="ServerOverloaded")

    async def aclose(self) -> None:
        """End the server, and start no other."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        await self._drop()

    async def _watch(self, server: LlamaServer) -> None:
        failures = 0
        while True:
            end = await self._end_of(server)
            _log.warning("llama.cpp ended (%s) and is started again", end)
            await self._drop()
            failures = failures + 1 if self._times.clock() - self._began < self._times.steady else 0
            server = await self._restart(failures)

    async def _end_of(self, server: LlamaServer) -> str:
        """Wait for the end of a server, or for the lack of signs of life; return the end in words."""
        ended = asyncio.create_task(server.ended())
        try:
            while True:
                await asyncio.wait([ended], timeout=self._times.probe)
                if ended.done():
                    return ended.result()
                try:
                    async with asyncio.timeout(self._times.hung):
                        await server.answers()
                except TimeoutError:
                    return f"no sign of life for {self._times.hung:g} s"
                except ConnectionError as error:
                    return type(error).__name__
                except OSError:
                    pass  # of this process, such as no file descriptor left
                except Exception:
                    _log.exception("llama.cpp cannot be asked for a sign of life")
        finally:
            ended.cancel()

    async def _restart(self, failures: int) -> LlamaServer:
        while True:
            if failures:
                await self._times.sleep(min(self._times.first_delay * 2 ** (failures - 1), self._times.max_delay))
            try:
                server = await self._start()
            except Exception as error:
                foreseen = isinstance(error, CtxCacheError)
                _log.error("llama.cpp cannot be started again: %s", error, exc_info=not foreseen)
                failures += 1
            else:
                self._adopt(server)
                return server

    def _adopt(self, server: LlamaServer) -> None:
        self._server = server
        self._ending = False
        self._began = self._times.clock()
        adopted, self._adopted = self._adopted, asyncio.Event()
        adopted.set()

    async def _drop(self) -> None:
        self._ending = True
        if self._server is not None:
            try:
                await self._server.aclose()  # if cancelled here, `aclose` comes again
            except Exception:
                _log.exception("llama.cpp did not end as it should")
            self._server = None
