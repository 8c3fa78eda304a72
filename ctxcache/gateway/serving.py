"""What every server here has: a key for clients, a URL, and a run from start to end."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

from ..errors import APIConnectionError, SessionError
from .app import BASE_PATH, App
from .connection import Connections
from .limits import GatewayLimits
from .listener import Listener

__all__ = ["Run", "local_url", "new_key"]

Step: TypeAlias = Callable[[], Awaitable[None]]

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # wildcards cannot be called


def new_key() -> str:
    """Make a random key."""
    return f"sk-{secrets.token_hex(24)}"


def local_url(host: str, port: int) -> str:
    """Return the base URL for clients of a server that listens on a host."""
    host = _LOOPBACK.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{BASE_PATH}"


async def _nothing() -> None:
    """Stand for a step that a server does not need."""


class Run:
    """One run of a server, from start to end: the steps that began are undone, even if one fails or is cancelled.

    Args:
        name: the server's name for errors: "the gateway".
        app: answers the requests.
        limits: the bounds on connections and time.
        leave_seconds: the time for requests that do not end at once when cancelled.
    """

    def __init__(self, name: str, app: App, limits: GatewayLimits, leave_seconds: float) -> None:
        self._connections: Final = Connections(app, limits)
        self._listener: Listener | None = None
        self._name: Final = name
        self._leave_seconds: Final = leave_seconds
        self._steps: Final = AsyncExitStack()
        self._closing = False
        self._ended: Final = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Whether the server has begun to listen, and is not closing."""
        return self._listener is not None and not self._closing

    @property
    def ended(self) -> bool:
        """Whether the run has ended, and another may start."""
        return self._ended.is_set()

    async def start(self, host: str, port: int, begin: Step = _nothing, end: Step = _nothing) -> int:
        """Listen; return the port.

        Args:
            host: the address.
            port: the port, 0 for a free one.
            begin: gets the server ready, before a socket is opened.
            end: undoes that, even if `begin` fails half-way; after the last connection.

        Raises:
            APIConnectionError: no address can be listened on (port in use, no such address, not allowed).
            SessionError: the server was closed meanwhile.
        """
        try:
            self._steps.push_async_callback(end)
            await begin()
            self._steps.push_async_callback(self._connections.aclose, self._leave_seconds)
            listener = await _listen(host, port, self._connections)
            self._steps.push_async_callback(listener.aclose)
            if self._closing:
                raise SessionError(f"{self._name} was closed before the start had ended")
        except BaseException:
            await self._undo()
            raise
        self._listener = listener
        self._connections.start()
        return listener.port

    def refuse(self, refusing: bool) -> None:
        """Refuse connections, and cut those that are open; or accept again. No effect before the start."""
        if self._listener is not None:
            self._listener.refuse(refusing)

    async def drain(self, seconds: float) -> None:
        """Stop listening; close idle connections at once, the others when their answers are sent.

        Args:
            seconds: the time after which to return.
        """
        if self._listener is not None:
            await self._listener.stop()
        await self._connections.drain(seconds)

    async def aclose(self) -> None:
        """Cut every connection and end; return when everything has ended. May be repeated."""
        closing, self._closing = self._closing, True
        if self._listener is None or closing:  # `start` or another task ends the run
            await self._ended.wait()
        else:
            await self._undo()

    async def _undo(self) -> None:
        try:
            await self._steps.aclose()
        finally:
            self._ended.set()


async def _listen(host: str, port: int, connections: Connections) -> Listener:
    try:
        return await Listener.open(host, port, connections, connections.turn_away)
    except (OSError, ValueError) as error:  # ValueError: a host that cannot be encoded
        problem = getattr(error, "strerror", None) or str(error)
    raise APIConnectionError(f"cannot listen on {host} port {port}: {problem}")
