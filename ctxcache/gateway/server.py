"""The gateway's socket: an aiohttp server from its start to its end."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from aiohttp import web

from ..config import Secret
from ..errors import APIConnectionError, InvalidInputError, SessionError
from ..models import Message
from .app import BASE_PATH, App, Headers, refusal
from .engines import Engine, ScriptedEngine
from .rules import refusals
from .rules.table import ContextTable

__all__ = ["MODELS", "WINDOW", "Gateway"]

MODELS: Final = ("Doubao-1.5-pro-32k", "Doubao-1.5-lite-32k", "Doubao-pro-32k")  # as in the API reference
WINDOW: Final = 32 * 1024

_log: Final = logging.getLogger("ctxcache.gateway")
_MOST_CHUNKS: Final = 4096  # bounds what one stream may hold
_MOST_TOKENS: Final = 1_000_000_000
_LEAVE_SECONDS: Final = 2.0  # for engines that do not stop at once when they are cancelled
_HANDOVER: Final = 5  # turns of the event loop from an accepted connection to connection_made: three, and some
_BACKLOG: Final = 1024
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # a wildcard is no address to call


class Gateway:
    """Both endpoints of the Context API on this machine, for tests, demos and load: `async with Gateway() as gateway`.

    Its contexts live in memory and end with it. Answers come from an engine; the built-in one is scripted and no
    language model. Served are `POST /v1/context/create`, `POST /v1/context/chat/completions`, `GET /v1/models` and,
    without a key, `GET /healthz`.

    Args:
        host: the address to listen on.
        port: the port, 0 for a free one.
        api_key: the bearer key clients must send, printable ASCII; None makes a random one.
        engine: writes the answers; None is `ScriptedEngine()`.
        models: the models served: ids, or ids with their context window in tokens; 32,768 where none is given.
        clock: the wall clock, Unix seconds. It drives ids, `created` and every ttl, so a clock that is set forward lets
            contexts expire.
        randbelow: the randomness of context ids, as `secrets.randbelow`.
        chunks_per_write: the most chunks of a stream in one write to the socket, where the engine is that fast; 1 sends
            each on its own.

    Raises:
        InvalidInputError: for an argument out of its range.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        engine: Engine | None = None,
        models: Iterable[str] | Mapping[str, int] = MODELS,
        clock: Callable[[], float] = time.time,
        randbelow: Callable[[int], int] = secrets.randbelow,
        chunks_per_write: int = 64,
    ) -> None:
        if not isinstance(host, str):
            raise InvalidInputError.of("host", host, "a string")
        self._host: Final = host
        self._port = _whole("port", port, 0, 65535)
        self._api_key: Final = Secret(_key(api_key) if api_key is not None else f"sk-{secrets.token_hex(24)}")
        self._contexts: Final = ContextTable(_windows(models), clock, randbelow)
        self._app: Final = App(
            self._contexts,
            ScriptedEngine() if engine is None else engine,
            self._api_key,
            clock,
            _whole("chunks_per_write", chunks_per_write, 1, _MOST_CHUNKS),
        )
        self._running: tuple[asyncio.Server, _Server] | None = None

    def __repr__(self) -> str:
        return f"Gateway({f'{self.base_url!r}' if self._running else 'not running'})"

    @property
    def api_key(self) -> str:
        """The key clients must send."""
        return self._api_key.reveal()

    @property
    def port(self) -> int:
        """The port it listens on; before the start, the one it was given."""
        return self._port

    @property
    def base_url(self) -> str:
        """What clients use as their base URL: `http://127.0.0.1:PORT/v1`.

        Raises:
            SessionError: before the start with port 0, when nobody knows it yet.
        """
        if not self._port:
            raise SessionError("the gateway has no port before it is started")
        host = _LOOPBACK.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}{BASE_PATH}"

    async def start(self) -> None:
        """Listen. After `aclose` it may be started again: same port, same contexts.

        Raises:
            SessionError: it is running.
            APIConnectionError: it cannot listen there (port in use, no such address, not allowed).
        """
        if self._running is not None:
            raise SessionError("the gateway is running already")
        server = _Server(self._app)
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(server, self._host, self._port, backlog=_BACKLOG)
        except (OSError, ValueError) as error:  # ValueError: a host that cannot be encoded
            problem = getattr(error, "strerror", None) or str(error)
        else:
            self._running = listener, server
            # On a wildcard with port 0 each family has a port of its own; the base URL names the IPv4 one.
            self._port = min(listener.sockets, key=lambda sock: sock.family).getsockname()[1]
            return
        raise APIConnectionError(f"cannot listen on {self._host} port {self._port}: {problem}")

    async def aclose(self) -> None:
        """Stop at once: connections are cut, answers under way abandoned, nothing is left behind. May be repeated."""
        running, self._running = self._running, None
        if running is None:
            return
        listener, server = running
        # asyncio loses a connection that it has accepted and not yet handed over when the listener is closed.
        for sock in listener.sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        try:
            for _ in range(_HANDOVER):
                await asyncio.sleep(0)
        finally:
            listener.close()
            server.abort()
        await server.shutdown(_LEAVE_SECONDS)

    async def __aenter__(self) -> "Gateway":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def expire(self, context_id: str) -> bool:
        """Let a context expire now, as its ttl would: the next call on it is refused. False where there is none."""
        return self._contexts.expire(context_id)

    def messages(self, context_id: str) -> tuple[Message, ...] | None:
        """Return the messages a context holds, oldest first; None where there is none. Its timer runs on."""
        context = self._contexts.get(context_id)
        return None if context is None else context.window.messages()


class _Server(web.Server):
    """Makes a protocol for each connection, and can cut them all."""

    def __init__(self, app: App) -> None:
        # handler_cancellation: a client that leaves ends its answer, and so frees its context, at once.
        super().__init__(app.handle, handler_cancellation=True)
        self.app: Final = app
        self.transports: Final[set[asyncio.Transport]] = set()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)

    def abort(self) -> None:
        """End every connection, and so its handler."""
        for transport in tuple(self.transports):
            transport.abort()  # close() would wait for a client that does not read


class _Connection(web.RequestHandler):
    """Speaks HTTP; answers what is not HTTP in the service's JSON too."""

    def __init__(self, server: _Server) -> None:
        # Compressed bodies are refused, so that a small body is a small body.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            auto_decompress=False,
        )
        self._server: Final = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport: aiohttp forgets one that it has closed and that is not yet flushed."""
        self._socket = cast("asyncio.Transport", transport)
        self._server.transports.add(self._socket)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._server.transports.discard(self._socket)
        super().connection_lost(exc)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what aiohttp itself met, which is clients that break off (`App.handle` logs failures of our own)."""
        _log.debug(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused (`App.handle` lets nothing else come here)."""
        headers: Headers = self._server.app.headers(request)
        response = refusal(refusals.bad_http(), headers)
        response.force_close()
        return response


def _whole(field: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInputError.of(field, value, f"a whole number from {low} to {high}")
    return value


def _key(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        allowed = "printable ASCII without spaces"
        raise InvalidInputError(f"api_key must be {allowed}", field="api_key", allowed=allowed)
    return value


def _windows(models: Any) -> dict[str, int]:
    if isinstance(models, str) or not isinstance(models, Iterable):
        raise InvalidInputError.of("models", models, "a list of ids, or a mapping from ids to tokens")
    windows = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, WINDOW)
    for name, window in windows.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError.of("models", name, "a list of non-empty strings")
        _whole(f"models[{name!r}]", window, 2, _MOST_TOKENS)
    return windows
