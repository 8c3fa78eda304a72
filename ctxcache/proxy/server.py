"""The Proxy object: settings, start and end."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self

from .. import checks
from ..client.session import AsyncSession
from ..config import Limits, Secret, Unset, hide
from ..errors import InvalidInputError, SessionError
from ..gateway import GatewayLimits
from ..gateway.app import App
from ..gateway.bodies import Bodies
from ..gateway.rules.allowed_hosts import AllowedHosts
from ..gateway.rules.clients import Clients
from ..gateway.serving import Run, local_url, new_key
from ..keywords import suggest_keywords
from ..managed import Prefix, Store
from ..models import Message, read_messages, system
from .endpoints import Endpoints
from .learning import Learner
from .plain import Plain
from .prefixes import Prefixes
from .recognition import Registry, unmark

__all__ = ["Proxy"]

_LIMITS: Final = GatewayLimits()
_LARGEST_WINDOW: Final = 1_000_000  # tokens: the upstream judges the size of a chat
_MAX_CONTEXTS: Final = 256
_LEARN_TOKENS: Final = 1024
_LEAVE_SECONDS: Final = 2.0
_NAMES: Final = {"api_key": "upstream_key", "base_url": "upstream"}  # as `AsyncSession` has them, and as a proxy


class Proxy:
    """OpenAI's chat endpoint in front, context caching behind: `async with Proxy(upstream_key, upstream) as proxy`.

    Clients of OpenAI's API need another base URL and key, and nothing else. The proxy serves
    `POST /v1/chat/completions`, `GET /v1/models` and, without a key, `GET /healthz`. A chat whose beginning is marked
    with `cache_control`, registered or learned goes over a context, which is created, renewed and shared as that of a
    `Prefix`. Every other chat goes on as sent, to the upstream's own `/chat/completions`. The response header
    `X-Ctxcache` says which: `created; ID`, `hit; ID` or `plain`.

    Args:
        upstream_key: the key for the upstream; default: the environment's `CTXCACHE_API_KEY`. Clients never see it.
        upstream: the base URL of a service with both endpoints of the Context API; default: the environment's
            `CTXCACHE_BASE_URL`, else as `AsyncSession`.
        host: the address to listen on; "" listens on all.
        port: the port, 0 for a free one.
        api_key: the bearer key clients must send, printable ASCII; None makes a random one.
        prefixes: registered beginnings: mappings with `model` and `messages`.
        store: shares contexts with other processes; you close it.
        ttl: idle time of a context: seconds in [3600, 604800] or a timedelta; default: the service's.
        max_contexts: the most live contexts of marked and learned beginnings, from 0 up; further chats go without.
            Registered beginnings do not count.
        learn: how many chats must begin alike before that beginning gets a context, from 2 up; None learns nothing.
        learn_tokens: the least tokens of a learned beginning, by a rough count.
        clock: the wall clock, Unix seconds.
        limits: the bounds on connections, requests and time.
        allowed_hosts: as in `Gateway`.

    Raises:
        InvalidInputError: for an argument out of range.
    """

    _run: Run | None = None  # the last; on the class: a failed constructor leaves a repr that works

    @suggest_keywords
    def __init__(
        self,
        upstream_key: str | None = None,
        upstream: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        prefixes: Iterable[Mapping[str, Any]] = (),
        store: Store | None = None,
        ttl: int | timedelta | Unset | None = None,
        max_contexts: int = _MAX_CONTEXTS,
        learn: int | None = None,
        learn_tokens: int = _LEARN_TOKENS,
        clock: Callable[[], float] = time.time,
        limits: GatewayLimits = _LIMITS,
        allowed_hosts: Iterable[str] | None = None,
    ) -> None:
        # Tracebacks may show local variables: from here on none holds a secret.
        api_key = hide(api_key)
        upstream_key = hide(os.environ.get("CTXCACHE_API_KEY", "") if upstream_key is None else upstream_key)
        key = Secret(new_key() if api_key is None else checks.api_key(api_key))
        self._session: Final = _open_session(upstream_key, hide(upstream))
        self._plain: Final = Plain(self._session.base_url, Secret(upstream_key.strip()), self._session.timeouts)
        self._host: Final = checks.string("host", host)
        self._port = checks.whole("port", port, 0, 65535)
        self._api_key: Final = key
        self._closed = False
        self._limits: Final = checks.instance("limits", limits, GatewayLimits, "GatewayLimits")
        self._bodies: Final = _bodies(limits)
        make = partial(Prefix, self._session, ttl=ttl, store=store, clock=clock)
        make(model="-", messages=(system("-"),))  # checks ttl, store and clock
        learner = _learner(learn, checks.whole("learn_tokens", learn_tokens, 1))
        registry = Registry(_registered(prefixes, make), learner)
        table = Prefixes(make, checks.whole("max_contexts", max_contexts, 0), clock)
        endpoints = Endpoints(registry, table, self._plain, self._bodies, clock)
        self._app: Final = App(endpoints, Clients.of_key(key), clock, AllowedHosts.of(self._host, allowed_hosts))

    def __repr__(self) -> str:
        return f"Proxy({repr(self.base_url) if self._run and self._run.listening else 'not running'})"

    @property
    def api_key(self) -> str:
        """The key clients must send."""
        return self._api_key.reveal()

    @property
    def upstream(self) -> str:
        """The base URL of the service behind."""
        return self._session.base_url

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
            raise SessionError("the proxy has no port before it is started")
        return local_url(self._host, self._port)

    async def start(self) -> None:
        """Listen. A closed proxy stays closed.

        Raises:
            SessionError: the proxy is running or starting, or was closed.
            APIConnectionError: the address cannot be listened on (port in use, no such address, not allowed).
        """
        if self._closed or (self._run is not None and not self._run.ended):
            raise SessionError("the proxy is closed" if self._closed else "the proxy is running already")
        run = self._run = Run("the proxy", self._app, self._limits, _LEAVE_SECONDS)
        self._port = await run.start(self._host, self._port)

    async def aclose(self, *, grace: float | None = None) -> None:
        """Stop, and leave no task and no socket. May be repeated: a second call cuts a grace short.

        Args:
            grace: None stops at once: connections are cut, answers under way abandoned. Else the proxy stops listening
                and lets the answers under way end for so many seconds before that.

        Raises:
            InvalidInputError: for a grace that is no number from 0 up.
        """
        seconds = None if grace is None else checks.number("grace", grace, 0)
        self._closed = True
        async with AsyncExitStack() as steps:  # each step is taken, even if one before is cancelled
            steps.push_async_callback(self._session.aclose)
            steps.push_async_callback(self._plain.aclose)
            steps.callback(self._bodies.close)
            if self._run is not None:
                steps.push_async_callback(self._run.aclose)
                if seconds is not None and self._run.listening:
                    await self._run.drain(seconds)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _open_session(key: str, url: str | None) -> AsyncSession:
    """Make the session with the upstream; clients repeat calls themselves, and know how long to go on.

    Raises:
        InvalidInputError: for the key or the URL, by the names that they have here.
    """
    try:
        return AsyncSession(key, url, retry=0, limits=Limits(connections=0))
    except InvalidInputError as error:
        name = _NAMES[error.field]
        message = error.message.partition(" (allow_insecure")[0].replace(error.field, name)
        refusal = InvalidInputError(message, field=name, value=error.value, allowed=error.allowed)
    raise refusal


def _bodies(limits: GatewayLimits) -> Bodies:
    return Bodies(
        lambda _: (),
        size=limits.body_bytes_for(_LARGEST_WINDOW),
        seconds=limits.body_seconds,
        memory=limits.request_bytes,
    )


def _learner(times: int | None, tokens: int) -> Learner | None:
    return None if times is None else Learner(checks.whole("learn", times, 2), tokens)


def _registered(prefixes: object, make: Callable[..., Prefix]) -> list[tuple[str, tuple[Message, ...]]]:
    """Read the registered beginnings, without marks."""
    allowed = "a list of mappings with model and messages"
    if isinstance(prefixes, str | Mapping) or not isinstance(prefixes, Iterable):
        raise InvalidInputError.of("prefixes", prefixes, allowed)
    registered = []
    for place, item in enumerate(prefixes):
        if not isinstance(item, Mapping) or not {"model", "messages"} <= item.keys():
            raise InvalidInputError.of(f"prefixes[{place}]", item, allowed)
        try:
            messages, _ = unmark(item["messages"])
            prefix = checks.text("model", item["model"]), read_messages(messages)
            make(model=prefix[0], messages=prefix[1])  # checks
            registered.append(prefix)
        except InvalidInputError as error:
            wrong = error.within(f"prefixes[{place}]")
        else:
            continue
        raise wrong
    return registered
