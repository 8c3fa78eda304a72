"""The endpoints: HTTP in, rules asked, HTTP out. A thin shell; what an answer says is decided in the pure modules.

Every answer, errors included, carries `X-Request-Id` and `X-Tt-Logid`, and `X-Client-Request-Id` where the client sent
one (seen). A stream's head is sent with its first chunk, so an engine that fails before it wrote anything is a plain
HTTP error; after that an error comes as an event, and the stream ends without `[DONE]`.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias, TypeVar

from aiohttp import web

from .. import codec
from ..config import UNSET, Secret
from ..errors import APIStatusError, InvalidInputError, ProtocolError
from ..models import ChatRequest, ContextRequest
from ..wire import CHAT_PATH, CREATE_PATH
from .engines import Engine
from .generation import Generation
from .rules import answers, refusals
from .rules.table import AcceptedChat, ContextTable

__all__ = ["BASE_PATH", "BODY_SECONDS", "MAX_BODY", "App"]

BASE_PATH: Final = "/v1"
MAX_BODY: Final = 64 * 1024 * 1024
BODY_SECONDS: Final = 60.0  # between two reads of a request's body

_log: Final = logging.getLogger("ctxcache.gateway")
_HEALTH_PATH: Final = "/healthz"
_LONGEST_ECHO: Final = 256
_JSON: Final = "application/json"

RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)
Headers: TypeAlias = dict[str, str]
Handler: TypeAlias = Callable[[web.BaseRequest, Headers], Awaitable[web.StreamResponse]]


class App:
    """Answers requests.

    Args:
        contexts: the contexts, and the rules for them.
        engine: writes the replies.
        api_key: what clients must send.
        clock: the wall clock, Unix seconds.
        chunks_per_write: the most chunks of a stream that are sent in one write.
    """

    def __init__(
        self, contexts: ContextTable, engine: Engine, api_key: Secret, clock: Callable[[], float], chunks_per_write: int
    ) -> None:
        self._contexts: Final = contexts
        self._engine: Final = engine
        self._api_key: Final = api_key
        self._clock: Final = clock
        self._chunks_per_write: Final = chunks_per_write
        self._routes: Final[dict[str, tuple[tuple[str, ...], Handler]]] = {
            BASE_PATH + CREATE_PATH: (("POST",), self._create),
            BASE_PATH + CHAT_PATH: (("POST",), self._chat),
            BASE_PATH + "/models": (("GET", "HEAD"), self._models),
            _HEALTH_PATH: (("GET", "HEAD"), self._healthz),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever happens, the answer is the service's JSON."""
        headers = self.headers(request)
        try:
            response = await self._route(request, headers)(request, headers)
        except Exception as error:
            response = refusal(_known(error), headers)
        path = request.rel_url.raw_path  # encoded, so that it cannot write lines of the log
        _log.debug("%s %s %d %s", request.method, path, response.status, headers["X-Request-Id"])
        return response

    def headers(self, request: web.BaseRequest) -> Headers:
        """Make the headers that say which request it was, in the forms the service gives them."""
        now = self._clock()
        headers = {
            "X-Request-Id": f"021{int(now * 1000)}{secrets.token_hex(16)}",
            "X-Tt-Logid": f"{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S}{secrets.token_hex(9).upper()}",
        }
        sent = request.headers.get("X-Client-Request-Id", "")
        if sent and len(sent) <= _LONGEST_ECHO and sent.isascii() and sent.isprintable():
            headers["X-Client-Request-Id"] = sent
        return headers

    # --- the endpoints ------------------------------------------------------------------------------------------------

    async def _healthz(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        return _json(b'{"status":"ok"}', headers)

    async def _models(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        return _json(answers.models(self._contexts.models), headers)

    async def _create(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        asked = await _read(ContextRequest, request)
        return _json(answers.context(self._contexts.create(asked)), headers)

    async def _chat(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        asked = await _read(ChatRequest, request)
        call = self._contexts.begin(asked)
        async with Generation(self._engine, call, self._chunks_per_write) as generation:
            try:
                if asked.stream is True:
                    return await self._stream(request, headers, call, generation)
                return await self._plain(headers, call, generation)
            finally:
                call.abandon()  # before the engine is waited for; a completed call is over already

    async def _plain(self, headers: Headers, call: AcceptedChat, generation: Generation) -> web.StreamResponse:
        while not generation.done:
            await generation.take()
        usage = call.complete()
        body = answers.completion(_answer_id(), int(self._clock()), call.context.model, call.replies, usage)
        return _json(body, headers)

    async def _stream(
        self, request: web.BaseRequest, headers: Headers, call: AcceptedChat, generation: Generation
    ) -> web.StreamResponse:
        kind = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers={**headers, **kind})
        try:
            try:
                await self._send(request, response, call, generation)
            except APIStatusError as error:
                if not response.prepared:
                    raise
                await response.write_eof(answers.error_event(refusals.envelope(error, headers["X-Request-Id"])))
        except ConnectionError:
            pass  # the client left; where the event loop notices first, this task is cancelled instead
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, call: AcceptedChat, generation: Generation
    ) -> None:
        options = call.request.stream_options
        with_usage = options is not UNSET and options.get("include_usage") is True
        chunks = answers.Chunks(_answer_id(), int(self._clock()), call.context.model, call.replies, usage=with_usage)
        while True:
            *writes, last = self._writes(chunks.events(await generation.take()))
            if not response.prepared:
                await response.prepare(request)
            for data in writes:
                await response.write(data)
            if generation.done:
                break
            await response.write(last)
        # The turn is stored, and the context free, before the client can know that the answer is complete and go on.
        usage = call.complete()
        *writes, last = self._writes([last, *([chunks.usage(usage)] if with_usage else []), answers.DONE])
        for data in writes:
            await response.write(data)
        await response.write_eof(last)

    def _writes(self, events: Sequence[bytes]) -> list[bytes]:
        size = self._chunks_per_write
        return [b"".join(events[start : start + size]) for start in range(0, len(events), size)]

    # --- who may ask what ---------------------------------------------------------------------------------------------

    def _route(self, request: web.BaseRequest, headers: Headers) -> Handler:
        route = self._routes.get(request.path)
        if route is None:
            raise refusals.path_not_found()
        methods, handler = route
        if request.method not in methods:
            headers["Allow"] = allowed = ", ".join(methods)
            raise refusals.method_not_allowed(allowed)
        if request.path != _HEALTH_PATH and not self._has_key(request):
            headers["WWW-Authenticate"] = "Bearer"
            raise refusals.bad_key()
        return handler

    def _has_key(self, request: web.BaseRequest) -> bool:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key.strip().encode("utf-8", "surrogateescape")  # as aiohttp decoded it
        return hmac.compare_digest(given, self._api_key.reveal().encode()) and scheme.lower() == "bearer"


def _known(error: Exception) -> APIStatusError:
    if isinstance(error, APIStatusError):
        return error
    _log.error("a request could not be handled", exc_info=error)
    return refusals.engine_failed()


def refusal(error: APIStatusError, headers: Headers) -> web.Response:
    """Make the answer that is an error."""
    body = codec.encode(refusals.envelope(error, headers["X-Request-Id"]))
    return _json(body, headers, error.status or 500)


def _json(body: bytes, headers: Headers, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={**headers, "Content-Type": _JSON})


def _answer_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


async def _read(kind: type[RequestT], request: web.BaseRequest) -> RequestT:
    if request.content_type != _JSON:
        raise refusals.bad_request("Content-Type", f"The Content-Type must be {_JSON}.", status=415)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise refusals.bad_request("Content-Encoding", "The body must not be compressed.", status=415)
    body = await _read_body(request)
    try:
        return codec.decode_request(kind, body)
    except InvalidInputError as error:
        problem = refusals.bad_field(error)
    except ProtocolError:
        problem = refusals.not_json("it is not a JSON object in UTF-8")
    except RecursionError:
        problem = refusals.not_json("it is nested too deeply")
    raise problem


async def _read_body(request: web.BaseRequest) -> bytes:
    if (request.content_length or 0) > MAX_BODY:
        raise refusals.too_large(MAX_BODY)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts: list[bytes] = []
    left = MAX_BODY
    try:
        while part := await _next_part(request):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise refusals.too_large(MAX_BODY)
    except TimeoutError:
        problem = refusals.bad_request("", "The request body did not come.", status=408)
    except web.RequestPayloadError:
        problem = refusals.bad_http()
    else:
        return b"".join(parts)
    raise problem


async def _next_part(request: web.BaseRequest) -> bytes:
    async with asyncio.timeout(BODY_SECONDS):
        return await request.content.readany()
