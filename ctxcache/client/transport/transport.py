"""`Transport`: the connections, and an attempt over a connection."""

import asyncio
import math
import os
import socket
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ...config import HiddenText, Limits, Secret, Timeouts, __version__, hide
from ...errors import (
    APIConnectionError,
    APITimeoutError,
    CtxCacheError,
    InvalidInputError,
    ProtocolError,
    SessionError,
)
from ...hosts import is_public, proxy_for
from ...wire import CHAT_PATH, COMPLETIONS_PATH, CREATE_PATH, Request
from ..environment import Environment
from ..slots import Slots
from .body import Body
from .evidence import Evidence
from .exchange import Exchange
from .failures import FOREIGN, translate
from .head_timeouts import HeadTimeouts, Reader

__all__ = ["CLOSE_TURNS", "Transport", "open_socket"]

_STALE_TRIES: Final = 4
CLOSE_TURNS: Final = 2  # turns of the event loop in which asyncio hears of a close that the kernel knows of
_TIMEOUTS_KEPT: Final = 64  # callers use a few; values made for a single call are not worth keeping
_HEAD_BYTES: Final = 64 * 1024  # of a status line or of one header field; some gateways send long cookies and policies
# Probes of an idle connection: the first after 60 s, then each 15 s; four without an answer end the connection.
_PROBES: Final = ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 60), (("TCP_KEEPINTVL",), 15), (("TCP_KEEPCNT",), 4))
_USER_AGENT: Final = f"ctxcache/{__version__} aiohttp/{aiohttp.__version__}"


class Transport:
    """The connections of a session to a base URL, in an event loop.

    Attributes:
        key, environment: the session's.
        loop: the event loop that every use must run in.
        closed: whether `aclose` was called.
    """

    def __init__(
        self,
        base_url: str,
        key: Secret,
        *,
        limits: Limits,
        headers: Mapping[str, str],
        http: aiohttp.ClientSession | None,
        environment: Environment,
        allow_insecure: bool = False,
    ) -> None:
        self._urls = _urls(base_url)
        self.key = key
        self.environment = environment
        self.loop = asyncio.get_running_loop()
        self._limits = limits
        self._slots = Slots(limits.connections or math.inf)
        headers = {
            "Accept": "application/json",  # as the API's documents recommend, for streams as well
            "Accept-Encoding": "identity",  # relays hold compressed bytes back to fill a block
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "Authorization": HiddenText(f"Bearer {key.reveal()}"),
            **headers,
        }
        self._owns_http = http is None
        self._proxy = ""  # host and port
        if http is None:
            proxy = _proxy_for(base_url, allow_insecure=allow_insecure)
            if proxy is not None:
                self._proxy = urlsplit(proxy).netloc.rpartition("@")[2]
            http = self._make_http(headers, proxy)
            headers = {}
            weakref.finalize(self, _abandon, http, self.loop)
        self._http = http
        self._headers = headers  # of each call; our own `ClientSession` adds its headers itself
        self._aiohttp_timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}
        self._heads = HeadTimeouts(self.loop, environment.clock, environment.look)
        self._open: set[Exchange] = set()
        self.closed = False

    def _make_http(self, headers: Mapping[str, str], proxy: str | None) -> aiohttp.ClientSession:
        # The pool's size is kept by `_slots`, where waiting for it has a limit of its own.
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=self._limits.keepalive or None,
            force_close=not self._limits.keepalive,
            socket_factory=open_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy,
            headers=headers,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
        )

    async def open(
        self,
        request: Request,
        client_request_id: str,
        timeouts: Timeouts,
        evidence: Evidence,
        *,
        urgent: bool = False,
        choose: Callable[[], Request] | None = None,
    ) -> Exchange:
        """Send a request and wait for the head of the answer, whatever the status.

        Args:
            request: the POST.
            client_request_id: goes out as `X-Client-Request-Id`.
            timeouts: the limits in force.
            evidence: kept up to date during the attempt.
            urgent: whether to wait for a connection at the front of the line.
            choose: makes the POST anew after such a wait.

        Raises:
            APIConnectionError: `sent` says whether the request may have run.
            APITimeoutError: likewise; `limit` is `connect`, `pool` or `head`.
            ProtocolError: for an answer that is not HTTP.
            SessionError: when the session is closed.
        """
        if self._slots.free:
            self._slots.free -= 1
            waited = False
        else:
            await self._wait_for_slot(timeouts, urgent)
            waited = True
        evidence.begun = True
        try:
            if waited and choose is not None:
                request = choose()
            response = await self._post_on_a_good_connection(request, client_request_id, timeouts, evidence)
        except BaseException:
            self._slots.release()
            raise
        exchange = Exchange(response, timeouts, client_request_id, self)
        self._open.add(exchange)
        return exchange

    async def _post_on_a_good_connection(
        self, request: Request, client_request_id: str, timeouts: Timeouts, evidence: Evidence
    ) -> aiohttp.ClientResponse:
        for _ in range(_STALE_TRIES):
            if self.closed or self._http.closed:
                raise SessionError("the session is closed")
            evidence.stale = False
            try:
                response = await self._post(request, client_request_id, timeouts, evidence)
                # An answer that comes over a connection before the request was sent answers nothing.
                if evidence.sent or (response.connection is None and not evidence.stale):
                    return response
                response.close()
            except (APIConnectionError, ProtocolError):  # the latter where bytes came unasked that are not HTTP
                if not evidence.stale:
                    raise
            # Other idle connections have often been closed, too: let the loop find out before the next try.
            for _ in range(CLOSE_TURNS):
                await asyncio.sleep(0)
        raise APIConnectionError("the server closed each connection before the request was sent")

    async def _post(
        self, request: Request, client_request_id: str, timeouts: Timeouts, evidence: Evidence
    ) -> aiohttp.ClientResponse:
        headers = {**self._headers, **request.headers, "X-Client-Request-Id": client_request_id}
        timeout, limit = self._aiohttp_timeout(timeouts), timeouts.head

        def leaves(reader: Reader) -> None:
            if limit is not None:
                self._heads.begin(evidence, reader, limit)

        try:
            return await self._http.post(
                self._urls[request.path],
                data=Body(request.body, evidence, leaves),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,  # the key would travel along
                raise_for_status=False,
            )
        except CtxCacheError:
            raise  # our own, such as the head's time limit
        except FOREIGN as error:
            failure = translate(error, timeouts, self.key, sent=evidence.sent, proxy=self._proxy)
        finally:
            if limit is not None:
                self._heads.end(evidence, limit)
        # Raised outside the handler: an exception of aiohttp, whose frames hold the headers, must not be the context.
        raise failure

    def _aiohttp_timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        made = self._aiohttp_timeouts.get(timeouts)
        if made is None:
            # aiohttp's `connect` covers the wait for its pool as well: ours is never full, a caller's may be.
            connect = timeouts.connect
            if not self._owns_http and connect is not None:
                connect = None if timeouts.pool is None else timeouts.pool + connect
            made = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=timeouts.connect)
            if len(self._aiohttp_timeouts) < _TIMEOUTS_KEPT:
                self._aiohttp_timeouts[timeouts] = made
        return made

    async def _wait_for_slot(self, timeouts: Timeouts, urgent: bool) -> None:
        try:
            async with asyncio.timeout(timeouts.pool):
                await self._slots.wait(first=urgent)
        except TimeoutError:
            pass
        else:
            return
        raise APITimeoutError.of("pool", timeouts.pool)

    def release(self, exchange: Exchange) -> None:
        """Take back the slot of an exchange that has ended."""
        self._open.discard(exchange)
        if self._slots.waiters:
            self._slots.release()
        else:
            self._slots.free += 1

    def holdings(self) -> dict[str, float]:
        """Count the exchanges and slots of calls under way; all 0 when there are none."""
        most = self._limits.connections
        return {"exchanges": len(self._open), "slots": most - self._slots.free if most else 0}

    async def aclose(self) -> None:
        """End every open exchange, with an error for the reader at once; then close the connections."""
        self.closed = True
        # aiohttp would leave a waiting reader waiting for ever (aio-libs/aiohttp#5582), hence this order.
        for exchange in list(self._open):
            exchange.fail(SessionError("the session was closed while the answer was being read"))
        self._heads.close()
        if self._owns_http:
            await self._http.close()


def _abandon(http: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections of a session that was never closed, and warns of that: aiohttp would warn again, and log.

    May run in any thread, also after the end of the loop.
    """
    connector = http.connector
    http.detach()
    if connector is None:
        return
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop.is_running() and running is not loop:
        loop.call_soon_threadsafe(_close_now, connector)
    else:
        _close_now(connector)


def _close_now(connector: aiohttp.BaseConnector) -> None:
    closing = connector.close().__await__()
    with suppress(StopIteration):
        next(closing)  # the first step closes the connections, the others wait for the end of TLS
    closing.close()


def _urls(base_url: str) -> dict[str, URL]:
    """Return the URL of each endpoint."""
    try:
        return {path: URL(base_url + path) for path in (CREATE_PATH, CHAT_PATH, COMPLETIONS_PATH)}
    except ValueError:
        pass
    raise InvalidInputError.of("base_url", base_url, "a URL whose host can be looked up")


def _proxy_for(base_url: str, *, allow_insecure: bool) -> str | None:
    """Return the proxy that the environment names for this URL; no local variable shows the password."""
    proxy: str | None = hide(proxy_for(base_url, os.environ))
    if proxy is None:
        return None
    if not _is_proxy(proxy):
        raise InvalidInputError("the proxy of the environment must be an http or https URL with a host", field="proxy")
    clear = base_url.startswith("http:") and proxy.startswith("http:")
    if clear and is_public(urlsplit(proxy).hostname or "") and not allow_insecure:
        raise InvalidInputError(
            "the proxy of the environment must be an https URL, or a host that is not public: over plain http others "
            "could read the API key on its way (allow_insecure=True sends it all the same)",
            field="proxy",
        )
    return proxy


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket that probes an idle connection from time to time (TCP keep-alive).

    A plain call may be silent for minutes while the model thinks, and devices on the way drop silent connections.
    """
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in _PROBES:
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
    return opened
