"""The Gateway object: settings, start and end."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Self

from .. import checks
from ..config import hide
from ..errors import InvalidInputError, SessionError
from ..keywords import suggest_keywords
from ..models import Message
from .app import App
from .bodies import Bodies
from .contexts import Contexts
from .endpoints import Endpoints
from .engines import Engine, ScriptedEngine
from .faults import Fault, FaultControls
from .faults.endpoints import FaultyEndpoints
from .faults.plan import Plan
from .faults.record import RecordedCall
from .key_file import Keys
from .limits import GatewayLimits
from .rules.allowed_hosts import AllowedHosts
from .rules.quota import Quota
from .rules.table import ContextTable
from .serving import Run, local_url
from .state import RedisState, SharedState, SQLiteState, State

__all__ = ["MODELS", "WINDOW", "Gateway"]

MODELS: Final = ("Doubao-1.5-pro-32k", "Doubao-1.5-lite-32k", "Doubao-pro-32k")  # as in the API reference
WINDOW: Final = 32 * 1024

_MAX_CHUNKS: Final = 4096  # bounds the memory of one stream
_MAX_WINDOW: Final = 1_000_000_000
_LIMITS: Final = GatewayLimits()
_REDIS: Final = ("redis://", "rediss://", "unix://")
_LEAVE_SECONDS: Final = 2.0  # for engines that do not stop at once when they are cancelled


class Gateway(FaultControls):
    """Both endpoints of the Context API on this machine, for tests, demos and load: `async with Gateway() as gateway`.

    Contexts live in memory and end with the gateway, unless `state` names a file. Answers come from an engine; the
    built-in engine is scripted and no language model. The gateway serves `POST /v1/context/create`,
    `POST /v1/context/chat/completions`, `GET /v1/models` and, without a key, `GET /healthz`. For tests of clients,
    faults are set and healed while the gateway runs: `gateway.fail(503, times=2)`; see `FaultControls`.

    Args:
        host: the address to listen on; "" listens on all.
        port: the port, 0 for a free one.
        api_key: the bearer key clients must send, printable ASCII; None makes a random one, unless `keys` is given.
        engine: writes the answers; None is `ScriptedEngine()`. Started and closed with the gateway.
        models: the models served: ids, or a mapping from ids to context windows in tokens (default 32,768).
        clock: the wall clock, Unix seconds. Ids, `created` and every ttl follow this clock: set it forward to let
            contexts expire.
        randbelow: the randomness of context ids, as `secrets.randbelow`.
        chunks_per_write: the most chunks of a stream in one write to the socket, for engines that fast; 1 sends each
            chunk on its own.
        limits: the bounds on connections, requests, contexts and time.
        allowed_hosts: the names, without port, that clients may call the gateway by (their `Host`), beside `host` and
            the names of this machine; ["*"] allows all. None: no other name if `host` is a loopback address, else all.
        state: where contexts outlive the process: the path of a file (`SQLiteState`), the URL of a Redis or Valkey
            server that several gateways may share (`RedisState`: `redis://…`), or a state. None: memory alone.
        faults: the faults set from the start, each a `Fault` or a line as for `ctxcache serve --fault`.
        keys: the path of a file of keys, as `ctxcache keys` writes, instead of `api_key`: each key sees the contexts
            that were created with it, and no others. None: the one key.

    Raises:
        InvalidInputError: for an argument out of range, and a file of keys that cannot be read.
    """

    _contexts: Contexts
    _faults: Plan
    _run: Run | None = None  # the last; on the class: a failed constructor leaves a repr that works

    @suggest_keywords
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
        limits: GatewayLimits = _LIMITS,
        allowed_hosts: Iterable[str] | None = None,
        state: State | str | os.PathLike[str] | None = None,
        faults: Iterable[Fault | str] = (),
        keys: str | os.PathLike[str] | None = None,
        _leave_seconds: float = _LEAVE_SECONDS,
        _sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        _watch: Callable[[RecordedCall], object] | None = None,
    ) -> None:
        api_key = hide(api_key)  # tracebacks may show local variables
        self._keys: Final = Keys(api_key, keys)
        self._host: Final = checks.string("host", host)
        self._port = checks.whole("port", port, 0, 65535)
        self._leave_seconds: Final = _leave_seconds
        self._engine: Final = ScriptedEngine() if engine is None else engine
        self._limits: Final = checks.instance("limits", limits, GatewayLimits, "GatewayLimits")
        windows = _windows(models)
        largest = max(windows.values(), default=0)
        kept = _state(state, clock, limits)
        ended = partial(_tell_end, self._engine, kept)
        table = ContextTable(windows, clock, randbelow, _quota(limits, largest, kept), ended)
        self._contexts = Contexts(table, kept, limits.memory_bytes)
        self._bodies: Final = _bodies(limits, largest, table, self._engine)
        chunks = checks.whole("chunks_per_write", chunks_per_write, 1, _MAX_CHUNKS)
        self._endpoints: Final = Endpoints(self._contexts, self._engine, clock, self._bodies, chunks)
        self._faults = Plan(self._set_unreachable, faults)
        endpoints = FaultyEndpoints(self._endpoints, self._faults, self._contexts, clock, _sleep, _watch)
        self._app: Final = App(endpoints, self._keys.clients, clock, AllowedHosts.of(self._host, allowed_hosts))

    def __repr__(self) -> str:
        return f"Gateway({repr(self.base_url) if self._run and self._run.listening else 'not running'})"

    @property
    def api_key(self) -> str:
        """The key clients must send.

        Raises:
            SessionError: the gateway has the keys of a file, of which only hashes are known.
        """
        return self._keys.api_key

    @property
    def port(self) -> int:
        """The port listened on; before the start, the port that was given."""
        return self._port

    @property
    def base_url(self) -> str:
        """The base URL for clients: `http://127.0.0.1:PORT/v1`.

        Raises:
            SessionError: before the start with port 0, which is not yet a port.
        """
        if not self._port:
            raise SessionError("the gateway has no port before it is started")
        return local_url(self._host, self._port)

    def reload_keys(self) -> bool:
        """Read the file of keys again. Calls under way end as usual, even with a key that is gone.

        Returns:
            Whether the keys are those of the file now. False for a gateway without a file, and for a file that cannot
            be read or is no list of keys: the keys stay, and a warning is logged.
        """
        return self._keys.reload()

    async def start(self) -> None:
        """Listen. A closed gateway may be started again, with the same port and contexts.

        Raises:
            SessionError: the gateway is running, starting or closing, or was closed before the start had ended.
            APIConnectionError: the address cannot be listened on (port in use, no such address, not allowed).
        """
        if self._run is not None and not self._run.ended:
            raise SessionError("the gateway is running already")
        run = self._run = Run("the gateway", self._app, self._limits, self._leave_seconds)
        self._port = await run.start(self._host, self._port, self._begin, self._end)
        run.refuse(self._faults.has_outage)

    async def aclose(self, *, grace: float | None = None) -> None:
        """Stop, and leave no task and no socket. May be repeated: a second call cuts a grace short.

        Args:
            grace: None stops at once: connections are cut, answers under way abandoned. Else the gateway stops
                listening, lets the answers under way end for so many seconds, and ends the others with an error:
                an event in a stream, else a 503.

        Raises:
            InvalidInputError: for a grace that is no number from 0 up.
        """
        seconds = None if grace is None else checks.number("grace", grace, 0)
        run = self._run
        if run is None:
            return
        try:
            if seconds is not None and run.listening:
                await run.drain(seconds)
                self._endpoints.interrupt()
                await run.drain(self._leave_seconds)
        finally:
            await run.aclose()

    async def _begin(self) -> None:
        modes = await self._contexts.start()
        await self._call_engine("start")
        if modes is not None and hasattr(self._engine, "resume"):
            self._engine.resume(modes)

    async def _end(self) -> None:
        self._bodies.close()
        try:
            await self._contexts.aclose()
        finally:
            await self._call_engine("aclose")

    async def _call_engine(self, method: str) -> None:
        """Call an optional method of the engine."""
        call = getattr(self._engine, method, None)
        if call is not None:
            await call()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _set_unreachable(self, unreachable: bool) -> None:
        if self._run is not None:
            self._run.refuse(unreachable)

    def messages(self, context_id: str) -> tuple[Message, ...] | None:
        """Return a context's messages, oldest first; None for an unknown context. No use: the idle timer runs on."""
        context = self._contexts.table.get(context_id)
        return None if context is None else context.window.messages()


def _quota(limits: GatewayLimits, window: int, state: State | None) -> Quota:
    shared = isinstance(state, SharedState)  # which has bounds of its own; memory holds copies
    return Quota(
        max_contexts=sys.maxsize if shared else limits.contexts,
        max_memory=sys.maxsize if shared else limits.memory_bytes,
        max_context_memory=limits.context_bytes_for(window),
        elsewhere=shared,
    )


def _bodies(limits: GatewayLimits, window: int, table: ContextTable, engine: Engine) -> Bodies:
    return Bodies(
        table.weigh if hasattr(engine, "count_tokens") else table.measure,
        size=limits.body_bytes_for(window),
        seconds=limits.body_seconds,
        memory=limits.request_bytes,
    )


def _tell_end(engine: Engine, state: State | None, context_id: str) -> None:
    """Tell engine and state that a context has ended; a shared state knows that by itself."""
    if hasattr(engine, "forget"):
        engine.forget(context_id)
    if state is not None and not isinstance(state, SharedState):
        state.forget(context_id)


def _state(value: Any, clock: Callable[[], float], limits: GatewayLimits) -> State | None:
    if isinstance(value, str) and value.startswith(_REDIS):
        return RedisState(value, contexts=limits.contexts, memory_bytes=limits.memory_bytes, clock=clock)
    return SQLiteState(value, clock=clock) if isinstance(value, str | os.PathLike) else value


def _windows(models: Any) -> dict[str, int]:
    if isinstance(models, str) or not isinstance(models, Iterable):
        raise InvalidInputError.of("models", models, "a list of ids, or a mapping from ids to tokens")
    windows = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, WINDOW)
    for name in windows:
        if not isinstance(name, str) or not name:
            raise InvalidInputError.of("models", name, "a list of non-empty strings")
    return {name: checks.whole(f"models[{name!r}]", window, 2, _MAX_WINDOW) for name, window in windows.items()}
