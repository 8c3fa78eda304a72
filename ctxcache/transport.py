"""One attempt of one request. The only client file that knows aiohttp: its pool, its time-outs, all its exceptions.

What the floors above rely on:

- *Evidence.* An `APIConnectionError` says in `sent` whether the request may have reached the server. `sent` turns true
  in one place, where the body is handed to the socket (`_Body`); before that nothing can have run, since a POST whose
  body never came is no request.
- *Stale connections.* A load balancer closes a kept-alive connection whenever it likes. In that same place, before the
  first byte leaves, the kernel is asked whether the peer has hung up or said something unasked; if so the request is
  not written and may safely go out on a fresh connection. What remains is a close that crosses our request on the
  wire, which nobody can tell from a lost reply: that one is `sent`.
- *One end.* However an exchange ends, it gives back the connection, the slot in the pool and whatever was hung on
  `on_close`, once.
"""

import asyncio
import select
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import StreamWriter

from .config import Limits, Secret, Timeouts, __version__
from .errors import APIConnectionError, APITimeoutError, CtxCacheError, InvalidInputError, ProtocolError, SessionError
from .wire import Request

__all__ = ["Attempt", "Exchange", "Transport"]

# After the end marker a server normally ends the body at once. Waiting a little for that keeps the connection; waiting
# longer would hold up the caller, who has the whole answer already.
_DRAIN_SECONDS: Final = 0.25
_DRAIN_BYTES: Final = 64 * 1024
_WRITE_BYTES: Final = 256 * 1024
_STALE_TRIES: Final = 4
_TLS_LOOKS: Final = 4
_LOOK_SECONDS: Final = 1.0
_TIMEOUTS_KEPT: Final = 64  # callers use a few; what is made anew for each call is not worth keeping
_TEXT_SHOWN: Final = 500
_USER_AGENT: Final = f"ctxcache/{__version__} aiohttp/{aiohttp.__version__}"
_HUNG_UP: Final = (
    getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)
)  # POLLRDHUP is Linux's; elsewhere a close shows as readable


class Transport:
    """The connections of one session to one base URL, in one event loop."""

    def __init__(
        self,
        base_url: str,
        key: Secret,
        *,
        limits: Limits,
        headers: Mapping[str, str],
        http: aiohttp.ClientSession | None,
    ) -> None:
        self._base_url = base_url
        self._key = key
        self.loop = asyncio.get_running_loop()
        self._limits = limits
        self._owns_http = http is None
        self._http = http if http is not None else self._make_http()
        self._slots = asyncio.Semaphore(limits.connections) if limits.connections else None
        self._headers = {
            "Accept-Encoding": "identity",  # what is compressed arrives late: relays hold it back to fill a block
            "User-Agent": _USER_AGENT,
            **headers,
            "Content-Type": "application/json",
            "Authorization": _Hidden(f"Bearer {key.reveal()}"),
        }
        self._aiohttp_timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}
        self._open: set[Exchange] = set()
        self.closed = False

    def _make_http(self) -> aiohttp.ClientSession:
        # The pool's size is kept by `_slots`, where waiting for it has a limit of its own.
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=self._limits.keepalive or None, force_close=not self._limits.keepalive
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=_proxy_for(self._base_url)
        )

    async def open(self, request: Request, timeouts: Timeouts, attempt: "Attempt") -> "Exchange":
        """Send a request and wait for the head of its answer, whatever its status.

        Raises:
            APIConnectionError: `sent` says whether the request may have run.
            APITimeoutError: likewise; `limit` is `connect`, `pool` or `head`.
            ProtocolError: for an answer that is not HTTP.
            SessionError: when the session is closed.
        """
        await self._take_slot(timeouts)
        try:
            for _ in range(_STALE_TRIES):
                if self.closed or self._http.closed:
                    raise SessionError("the session is closed")
                attempt.stale = False
                try:
                    response = await self._post(request, timeouts, attempt)
                    if attempt.sent:
                        break
                    response.close()  # said before we had asked: it answers nothing
                except APIConnectionError:
                    if not attempt.stale:
                        raise
                # The other idle connections have often been closed, too: let the loop find out before the next try.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            else:
                raise APIConnectionError("the server closed each connection before the request was sent")
        except BaseException:
            self._free_slot()
            raise
        exchange = Exchange(self, response, timeouts)
        self._open.add(exchange)
        return exchange

    async def _post(self, request: Request, timeouts: Timeouts, attempt: "Attempt") -> aiohttp.ClientResponse:
        headers = {
            **self._headers,
            "Accept": "text/event-stream" if request.stream else "application/json",
            **request.headers,
            "X-Client-Request-Id": attempt.client_request_id,
        }
        try:
            return await self._http.post(
                self._base_url + request.path,
                data=_Body(request.body, attempt, timeouts.head),
                headers=headers,
                timeout=self._aiohttp_timeout(timeouts),
                allow_redirects=False,  # the key would travel along
                raise_for_status=False,
            )
        except _FOREIGN as error:
            failure = self.translate(error, timeouts, sent=attempt.sent)
        finally:
            if attempt.head_timer is not None:
                attempt.head_timer.cancel()
        # Raised out here so that no exception of aiohttp, whose frames hold the headers, hangs on ours.
        raise failure

    def _aiohttp_timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        made = self._aiohttp_timeouts.get(timeouts)
        if made is None:
            # What aiohttp calls `connect` covers its pool as well: ours is never full, a caller's may be.
            connect = timeouts.connect
            if not self._owns_http and connect is not None:
                connect = None if timeouts.pool is None else timeouts.pool + connect
            made = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=timeouts.connect)
            if len(self._aiohttp_timeouts) < _TIMEOUTS_KEPT:
                self._aiohttp_timeouts[timeouts] = made
        return made

    async def _take_slot(self, timeouts: Timeouts) -> None:
        if self._slots is None:
            return
        if timeouts.pool is None or not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(timeouts.pool):
                await self._slots.acquire()
        except TimeoutError:
            pass
        else:
            return
        raise APITimeoutError.of("pool", timeouts.pool, hopeless=True)

    def _free_slot(self) -> None:
        if self._slots is not None:
            self._slots.release()

    def translate(self, error: BaseException, timeouts: Timeouts, *, sent: bool) -> CtxCacheError:
        """Turn an exception of a library below us into one of ours: the one table."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return APITimeoutError.of("connect", timeouts.connect)
        what, make = next((what, make) for kinds, what, make in _TABLE if isinstance(error, kinds))
        # The str of a ClientResponseError has the URL, and a proxy's URL may have a password.
        if isinstance(error, aiohttp.ClientResponseError):
            text = error.message
        elif isinstance(error, aiohttp.ClientConnectorError):
            text = f"{error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
        else:
            text = f"{type(error).__name__}: {error}"
        return make(self._key.redact(f"{what}: {' '.join(text.split())}")[:_TEXT_SHOWN], sent)

    def release(self, exchange: "Exchange") -> None:
        """Take back what an exchange held; called by the exchange, once."""
        self._open.discard(exchange)
        self._free_slot()

    async def aclose(self) -> None:
        """End every open exchange with an error its reader gets at once, then close the connections."""
        self.closed = True
        # aiohttp would leave a waiting reader waiting for ever (aio-libs/aiohttp#5582), hence this order.
        for exchange in list(self._open):
            exchange.fail(SessionError("the session was closed while the answer was being read"))
        if self._owns_http:
            await self._http.close()


class Attempt:
    """What is known of one attempt while it is under way.

    Attributes:
        client_request_id: goes out as `X-Client-Request-Id`.
        sent: whether the request may have reached the server.
        stale: whether the connection was found closed before anything was written.
        head_timer: runs from the request sent to the head of the answer.
    """

    __slots__ = ("client_request_id", "head_timer", "sent", "stale")

    def __init__(self, client_request_id: str) -> None:
        self.client_request_id = client_request_id
        self.sent = False
        self.stale = False
        self.head_timer: asyncio.TimerHandle | None = None


class Exchange:
    """An answer whose head has come. One task reads it.

    Attributes:
        status, headers, content_type: of the answer; `headers` is case-insensitive, `content_type` in lower case
            and without parameters.
        on_close: called once when the exchange ends, with the error that ended it from outside, if one did.
    """

    def __init__(self, transport: Transport, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.on_close: Callable[[CtxCacheError | None], None] | None = None
        self.closed = False
        self._transport = transport
        self._response = response
        self._content = response.content
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._failure: CtxCacheError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._total_at: float | None = None
        self._owner: weakref.ref[Any] | None = None

    async def read(self) -> bytes:
        """Return the next bytes as they come; b"" at the end of the body.

        Raises:
            APIConnectionError: the body was cut off.
            APITimeoutError: `idle` passed since `wait_begins`, or `total` since the call began.
            SessionError: the session was closed.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return await self._content.readany()
        except CtxCacheError:
            raise  # our own, put there by `fail`
        except _FOREIGN as error:
            failure = self._transport.translate(error, self._timeouts, sent=True)
        # aiohttp drops what it had received before the failure; the end marker may be in it.
        rescued = b"".join(getattr(self._content, "_buffer", ()))
        if rescued and self._failure is None:
            self._failure = failure
            return rescued
        raise failure

    async def read_all(self, most: int) -> bytes:
        """Read the body to its end and give the connection back.

        Raises:
            ProtocolError: for a body of more than `most` bytes.
            APIConnectionError, APITimeoutError, SessionError: as `read`.
        """
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                if not self._content.is_eof():
                    self.wait_begins()
                data = await self.read()
                if not data:
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                parts.append(data)
                size += len(data)
                if size > most:
                    raise ProtocolError(f"the server sent a body of more than Limits.body_bytes = {most:,} bytes")
        finally:
            self.close()

    async def finish(self) -> None:
        """End a stream whose end marker has come: wait a moment for the end of the body, to keep the connection."""
        try:
            if not self._content.at_eof():
                async with asyncio.timeout(_DRAIN_SECONDS):
                    drained = 0
                    while drained <= _DRAIN_BYTES and (data := await self._content.readany()):
                        drained += len(data)
        except (*_FOREIGN, CtxCacheError):
            pass  # the answer is whole; only the connection is lost
        finally:
            self.close()

    def close(self) -> None:
        """End the exchange. The connection is kept if the body was read to its end, else closed."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()  # does nothing where the end of the body has given the connection back
        self._owner = None
        self._transport.release(self)
        if self.on_close is not None:
            on_close, self.on_close = self.on_close, None
            on_close(self._failure)

    def fail(self, error: CtxCacheError) -> None:
        """End the exchange from outside: a reader, waiting or yet to come, gets `error`."""
        if not self.closed:
            self._failure = error
            self._content.set_exception(error)
            self.close()

    # --- time limits: one timer an exchange, moved lazily, so that a chunk costs no timer

    def wait_begins(self) -> None:
        """Say that the caller now waits for data; `idle` is counted from here until `wait_ends`."""
        self._waiting_since = self._loop.time()
        if self._timer is None:
            self._watch()

    def wait_ends(self) -> None:
        """Say that the data waited for has come."""
        self._waiting_since = None

    def limit_total(self, at: float) -> None:
        """Fail the exchange at this time of the loop's clock, if it is still open."""
        self._total_at = at
        if self._timer is None:
            self._watch()  # also while nobody reads

    def _watch(self) -> None:
        now = self._loop.time()
        if (failure := self._overdue(now)) is not None:
            self.fail(failure)
            return
        self._tell_if_broken()
        dues = [now + _LOOK_SECONDS]
        if self._timeouts.idle is not None:
            dues.append((now if self._waiting_since is None else self._waiting_since) + self._timeouts.idle)
        if self._total_at is not None:
            dues.append(self._total_at)
        self._timer = self._loop.call_at(min(dues), self._watch)

    def _overdue(self, now: float) -> CtxCacheError | None:
        idle, since = self._timeouts.idle, self._waiting_since
        if self._total_at is not None and now >= self._total_at:
            return APITimeoutError.of("total", self._timeouts.total, sent=True)
        if idle is not None and since is not None and now >= since + idle:
            return APITimeoutError.of("idle", idle, sent=True)
        return None

    def _tell_if_broken(self) -> None:
        """Wake the reader of a connection that is gone: aiohttp does not, where the framing of a chunk is broken."""
        protocol = self._response.connection.protocol if self._response.connection else None
        if protocol is None or protocol.connected or self._content.is_eof() or self._content.exception() is not None:
            return
        self._content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection is gone"))

    def close_with(self, owner: object) -> None:
        """Close the exchange when `owner` is garbage-collected, in whichever thread that happens."""
        self._owner = weakref.ref(owner, self._abandoned)

    def _abandoned(self, _: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)


class _Body(aiohttp.payload.Payload):
    """A request body that notes when it leaves, and does not leave on a connection the peer has done with."""

    _autoclose = True
    _value: bytes

    def __init__(self, data: bytes, attempt: Attempt, head: float | None) -> None:
        super().__init__(data, content_type="application/json")
        self._size = len(data)
        self._attempt = attempt
        self._head = head

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        stream, attempt = cast(StreamWriter, writer), self._attempt
        protocol = cast(ResponseHandler, stream.protocol)
        for _ in range(_TLS_LOOKS):
            stale = _is_stale(stream.transport, protocol)
            if stale is not None:
                break
            await asyncio.sleep(0)
        if stale:
            attempt.stale = True
            raise ConnectionResetError("closed by the server while idle")
        attempt.sent = True
        if self._head is not None:
            # Whoever waits for the head gets the error; an asyncio.timeout around it all would cost five times as much.
            failure = partial(APITimeoutError.of, "head", self._head, sent=True)
            attempt.head_timer = stream.loop.call_later(self._head, lambda: protocol.set_exception(failure()))
        for start in range(0, len(self._value), _WRITE_BYTES):
            await writer.write(self._value[start : start + _WRITE_BYTES])


def _is_stale(transport: asyncio.Transport | None, protocol: ResponseHandler) -> bool | None:
    """Whether the peer has closed the connection, or sent what no request asked for; None: look again in a moment."""
    if transport is None or transport.is_closing() or protocol.should_close:
        return True
    socket = transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN | _HUNG_UP)
    ready = poll.poll(0)
    if not ready:
        return False
    if ready[0][1] & _HUNG_UP or transport.get_extra_info("sslcontext") is None:
        return True
    return None  # unread TLS records: session tickets, or a goodbye; the loop has to read them first


class _Hidden(str):
    """A header value that keeps out of tracebacks that show local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _proxy_for(base_url: str) -> str | None:
    """The proxy the environment names for this URL: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`."""
    url = urlsplit(base_url)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise InvalidInputError("the proxy of the environment: allowed is an http or https URL", field="proxy")
    return proxy


# --- exceptions -------------------------------------------------------------------------------------------------------


def _unsent(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text)


def _hopeless(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text, hopeless=True)


def _as_known(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text, sent=sent)


def _protocol(text: str, sent: bool) -> CtxCacheError:
    return ProtocolError(text)


# What the libraries below raise. RuntimeError and ValueError are how aiohttp says that a connection is gone, or that a
# setting of the caller's own `ClientSession` contradicts ours.
_FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, EOFError, TimeoutError, RuntimeError, ValueError)
_TABLE: Final[tuple[tuple[Any, str, Callable[[str, bool], CtxCacheError]], ...]] = (
    (
        (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch),
        "no secure connection",
        _hopeless,
    ),
    ((aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorError), "cannot connect", _unsent),
    ((aiohttp.ClientResponseError, HttpProcessingError), "the answer is not HTTP", _protocol),
    (aiohttp.ClientPayloadError, "the answer was cut off", _as_known),
    ((aiohttp.InvalidURL, ValueError), "the request could not be made", _hopeless),
    (Exception, "the connection broke", _as_known),
)
