"""A call without a context: passed on to the upstream, and the answer passed back, byte for byte.

The status, the body and the headers that mean something to a client are the upstream's own. A stream goes on read by
read. A body that breaks off never looks whole: a stream ends with an error event, any other answer is a 502.
Compressed bodies, which are not asked for, are passed back decoded.
"""

import io
import os
from typing import Final

import aiohttp
from aiohttp import HttpVersion11, web

from ..config import Secret, Timeouts
from ..errors import APIConnectionError, APITimeoutError, CtxCacheError, ProtocolError, StreamInterruptedError
from ..gateway.bodies import Headers
from ..hosts import proxy_for
from . import answers

__all__ = ["Plain"]

_PASSED_BACK: Final = ("content-type", "retry-after", "x-request-id", "x-tt-logid", "openai-processing-ms")
_PASSED_BACK_PREFIX: Final = "x-ratelimit-"
_DECODED: Final = ("gzip", "deflate", "br", "zstd")  # by aiohttp, or refused if the library is missing
_EVENTS: Final = "text/event-stream"
_BODY_BYTES: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024


class Plain:
    """Passes calls on.

    Args:
        base_url: the upstream's base URL.
        key: the key for the upstream.
        timeouts: `connect` limits the wait for a connection, `head` the wait for bytes.
    """

    def __init__(self, base_url: str, key: Secret, timeouts: Timeouts) -> None:
        self._base_url: Final = base_url
        self._key: Final = key
        self._timeout: Final = aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.head)
        self._http: aiohttp.ClientSession | None = None  # from the first call on

    async def aclose(self) -> None:
        """Cut every connection."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _connections(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the listener bounds the clients
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BYTES,
                timeout=self._timeout,
            )
        return self._http

    async def send(
        self, request: web.BaseRequest, path: str, body: bytes | None, headers: Headers
    ) -> web.StreamResponse:
        """Pass a call on, and the answer back.

        Args:
            request: the client's request.
            path: below the base URL.
            body: the JSON to post; None for a GET.
            headers: of the response.

        Raises:
            CtxCacheError: no answer came, and nothing was passed back.
        """
        failure: CtxCacheError
        url = self._base_url + path
        own = {"Authorization": f"Bearer {self._key.reveal()}", "Accept-Encoding": "identity"}
        if body is not None:
            own["Content-Type"] = "application/json"
        try:
            async with self._connections().request(
                "GET" if body is None else "POST",
                url,
                data=None if body is None else io.BytesIO(body),  # aiohttp warns of large bodies given as bytes
                headers=own,
                allow_redirects=False,  # the key would travel along
                proxy=proxy_for(url, os.environ),
            ) as answer:
                return await self._pass_back(request, answer, headers)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = _failure(error)
        raise failure

    async def _pass_back(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, headers: Headers
    ) -> web.StreamResponse:
        headers = {**headers, **_passed_back(answer)}
        if answer.status == 200 and answer.content_type == _EVENTS:
            return await _relay(request, answer, headers)
        body = bytearray()
        async for data in answer.content.iter_chunked(_READ_BYTES):
            body += data
            if len(body) > _BODY_BYTES:
                raise ProtocolError(f"the upstream sent an answer of more than {_BODY_BYTES} bytes")
        # An error may repeat the key that was refused.
        sent = bytes(body) if answer.status < 400 else self._key.redact(bytes(body))
        return web.Response(status=answer.status, body=sent, headers=headers)


def _passed_back(answer: aiohttp.ClientResponse) -> Headers:
    passed = {
        name.title(): value
        for name, value in answer.headers.items()
        if name.lower() in _PASSED_BACK or name.lower().startswith(_PASSED_BACK_PREFIX)
    }
    encoding = answer.headers.get("Content-Encoding")
    return passed if encoding is None or encoding.lower() in _DECODED else {**passed, "Content-Encoding": encoding}


async def _relay(request: web.BaseRequest, answer: aiohttp.ClientResponse, headers: Headers) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    if request.version < HttpVersion11:
        response.force_close()  # without chunks, the end of the connection is the end of the answer
    await response.prepare(request)
    try:
        while data := await _read(answer):
            await response.write(data)
    except CtxCacheError as error:
        await response.write_eof(b"\n\n" + answers.error_event(error))  # an event may have been cut
    except ConnectionError:
        pass  # the client left; if the event loop notices first, this task is cancelled instead
    else:
        await response.write_eof()
    return response


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Read on.

    Raises:
        StreamInterruptedError: the upstream broke off.
    """
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        problem = type(error).__name__
    raise StreamInterruptedError(f"the stream was interrupted: the upstream broke off ({problem})")


def _failure(error: Exception) -> CtxCacheError:
    """Say that no answer came, without the words of the library, which may have a URL with a password."""
    if isinstance(error, TimeoutError):
        return APITimeoutError("the upstream did not answer in time")
    return APIConnectionError(f"the upstream gave no answer: {type(error).__name__}")
