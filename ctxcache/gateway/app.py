"""The path of every request: ids are given, route and key checked, an endpoint answers, the response is logged.

Every response, errors included, has `X-Request-Id` and `X-Tt-Logid`, and repeats the client's `X-Client-Request-Id`
(observed at the service).
"""

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol, cast

from aiohttp import HttpVersion11, web

from ..errors import APIStatusError
from .bodies import CLIENT, Handler, Headers, Routes, json_response, refuse
from .rules import refusals
from .rules.allowed_hosts import AllowedHosts
from .rules.clients import Client, Clients

__all__ = ["BASE_PATH", "App", "Routed"]

BASE_PATH: Final = "/v1"

_log: Final = logging.getLogger("ctxcache.gateway")
_HEALTH_PATH: Final = "/healthz"
_ALL_HOSTS: Final = AllowedHosts(None)
_MAX_CLIENT_ID: Final = 256  # characters of a client's request id; longer ones are not repeated


class Routed(Protocol):
    """The endpoints of a server."""

    @property
    def routes(self) -> Routes:
        """The methods and the handler of each path, which is under `BASE_PATH`."""
        ...


class App:
    """Answers HTTP requests.

    Args:
        endpoints: the endpoints to route to; `GET /healthz` is answered here.
        clients: finds the client of a key; endpoints find the client in `request[CLIENT]`.
        clock: the wall clock, Unix seconds.
        hosts: the names that clients may call the gateway by.
    """

    def __init__(
        self, endpoints: Routed, clients: Clients, clock: Callable[[], float], hosts: AllowedHosts = _ALL_HOSTS
    ) -> None:
        self._hosts: Final = hosts
        self._clients: Final = clients
        self._clock: Final = clock
        routes = {BASE_PATH + path: route for path, route in endpoints.routes.items()}
        self._posts: Final = [path for path, (methods, _) in routes.items() if "POST" in methods]
        self._routes: Final[Routes] = {**routes, _HEALTH_PATH: (("GET", "HEAD"), _healthz)}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; every failure becomes an error in the service's JSON."""
        headers = self._new_headers(request)
        try:
            response = await self._route(request, headers)(request, headers)
        except APIStatusError as error:
            response = refuse(error, headers)
        except Exception:
            _log.exception("a request failed: %s", headers["X-Request-Id"])
            response = refuse(refusals.engine_failed(), headers)
        method, path = _printable(request.method), _printable(request.rel_url.raw_path)
        _log.debug("%s %s %d %s", method, path, response.status, headers["X-Request-Id"])
        return response

    def refuse_http(self, request: web.BaseRequest) -> web.Response:
        """Answer bytes that are not HTTP, and end the connection."""
        response = refuse(refusals.bad_http(), self._new_headers(request))
        response.force_close()
        return response

    def refuse_early(self, error: APIStatusError) -> bytes:
        """Make the bytes of a response to a connection without a request; to be closed then."""
        response = refuse(error, {**self._new_headers(None), "Connection": "close"})
        body = cast(bytes, response.body)
        lines = [f"{name}: {value}" for name, value in response.headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {response.status} {response.reason}", *lines])
        return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body)

    def _new_headers(self, request: web.BaseRequest | None) -> Headers:
        """Make the headers that identify a request, in the service's forms, and the server without its version."""
        now = self._clock()
        headers = {
            "X-Request-Id": f"021{int(now * 1000)}{secrets.token_hex(16)}",
            "X-Tt-Logid": f"{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S}{secrets.token_hex(9).upper()}",
            "Server": "ctxcache",
        }
        client_id = "" if request is None else request.headers.get("X-Client-Request-Id", "")
        if client_id and len(client_id) <= _MAX_CLIENT_ID and client_id.isascii() and client_id.isprintable():
            headers["X-Client-Request-Id"] = client_id
        return headers

    def _route(self, request: web.BaseRequest, headers: Headers) -> Handler:
        if not self._hosts.allows(request.headers.get("Host")):
            raise refusals.wrong_host()
        if request.version > HttpVersion11:
            raise refusals.bad_http()
        route = self._routes.get(request.path)
        if route is None:
            raise refusals.path_not_found(self._posts)
        methods, handler = route
        if request.method not in methods:
            headers["Allow"] = allowed = ", ".join(methods)
            raise refusals.method_not_allowed(allowed)
        if request.path != _HEALTH_PATH:
            client = self._client_of(request)
            if client is None:
                headers["WWW-Authenticate"] = "Bearer"
                raise refusals.bad_key()
            request[CLIENT] = client
        return handler

    def _client_of(self, request: web.BaseRequest) -> Client | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key.strip().encode("utf-8", "surrogateescape")  # as aiohttp decoded the header
        client = self._clients.find(given)
        return client if scheme.lower() == "bearer" else None


async def _healthz(request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
    return json_response(b'{"status":"ok"}', headers)


def _printable(text: str) -> str:
    """Escape characters that could forge a line of the log or break its encoding."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
