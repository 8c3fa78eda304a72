"""The endpoints of the proxy: a chat goes over a context, or on as sent; the models are the upstream's."""

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import HttpVersion11, web

from ..client.resources.parameters import ChatParameters
from ..errors import (
    APIStatusError,
    BadRequestError,
    ContextGoneError,
    CtxCacheError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
)
from ..gateway.bodies import Bodies, Headers, Routes, decode_object, json_response
from ..managed import ManagedStream
from . import answers
from .plain import Plain
from .prefixes import HeldPrefix, Prefixes
from .recognition import Chat, Registry, read_body

__all__ = ["Endpoints"]

_COMPLETIONS: Final = "/chat/completions"
_MODELS: Final = "/models"
_WAY: Final = "X-Ctxcache"
_NOT_FOUND: Final = 404
_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
# A create that ends so will end so again: no context fits these messages, this model or this account.
_NO_CONTEXT: Final = (BadRequestError, NotFoundError, PermissionDeniedError, QuotaExceededError)


class Endpoints:
    """Chat and the list of models. Each method answers one HTTP request.

    Args:
        registry: the registered beginnings.
        prefixes: the live prefixes.
        plain: passes calls on.
        bodies: reads request bodies.
        clock: the wall clock, Unix seconds.
    """

    def __init__(
        self, registry: Registry, prefixes: Prefixes, plain: Plain, bodies: Bodies, clock: Callable[[], float]
    ) -> None:
        self._registry: Final = registry
        self._prefixes: Final = prefixes
        self._plain: Final = plain
        self._bodies: Final = bodies
        self._clock: Final = clock

    @property
    def routes(self) -> Routes:
        """The methods and the handler of each path."""
        return {_COMPLETIONS: (("POST",), self.chat), _MODELS: (("GET", "HEAD"), self.models)}

    async def models(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        """List the upstream's models."""
        try:
            return await self._plain.send(request, _MODELS, None, headers)
        except CtxCacheError as error:
            return _refuse(error, headers)

    async def chat(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        """Answer a chat."""
        with self._bodies.reserve() as reservation:
            sent, chat = await self._bodies.read_by(self._read, request, reservation)
            if chat is not None:
                chat = self._registry.learn(chat)
            try:
                return await self._answer(request, sent, chat, headers)
            except CtxCacheError as error:
                return _refuse(error, headers)

    def _read(self, sent: bytes) -> tuple[bytes, Chat | None]:
        """Read a body; called in a thread for larger bodies."""
        return read_body(sent, decode_object(sent), self._registry)

    async def _answer(
        self, request: web.BaseRequest, sent: bytes, chat: Chat | None, headers: Headers
    ) -> web.StreamResponse:
        """Answer a chat over a context; where no context fits, pass the chat on.

        Raises:
            CtxCacheError: any of the family, before anything was passed back.
        """
        beginnings = () if chat is None else chat.beginnings
        try:
            held = None if chat is None else self._prefixes.choose(chat)
            if held is not None and chat is not None:
                with held.used():
                    answer = await self._over(held, chat, request, headers)
                if answer is not None:
                    return answer
        except InvalidInputError:
            pass  # for the upstream to judge: nothing was sent
        passed_back = await self._plain.send(request, _COMPLETIONS, sent, {**headers, _WAY: "plain"})
        if passed_back.status == _NOT_FOUND and (refusal := self._prefixes.refusal(beginnings)) is not None:
            return _refuse(refusal, headers)  # tells more: the upstream has no chat without a context
        return passed_back

    async def _over(
        self, held: HeldPrefix, chat: Chat, request: web.BaseRequest, headers: Headers
    ) -> web.StreamResponse | None:
        """Answer a chat over a prefix; None where the service refuses a context for these messages.

        Raises:
            InvalidInputError: a parameter is out of range; nothing was sent.
            CtxCacheError: any other of the family, before anything was passed back.
        """
        try:
            return await self._ask(held, chat, request, headers)
        except ContextGoneError:
            raise
        except _NO_CONTEXT as error:
            if held.prefix.context is not None:
                raise  # the chat was refused, not a first or a new context
            self._prefixes.refuse(held, error)
            return None

    async def _ask(
        self, held: HeldPrefix, chat: Chat, request: web.BaseRequest, headers: Headers
    ) -> web.StreamResponse:
        rest, options = chat.messages[held.length :], _options(chat)
        new = self._new_answer(chat)
        if chat.stream:
            async with held.prefix.stream(rest, **options) as stream:
                return await _relay(request, stream, held, _chunks(chat, *new), headers)
        answer = await held.prefix.ask(rest, **options)
        body = answers.completion(answer, chat.model, *new)
        ids = _ids(answer.request_id, answer.log_id)
        return json_response(body, {**headers, **ids, _WAY: _way(held, answer.context_id)})

    def _new_answer(self, chat: Chat) -> tuple[str, int]:
        return f"chatcmpl-{secrets.token_hex(12)}", int(self._clock())


def _options(chat: Chat) -> ChatParameters:
    """Return the parameters of a chat over a prefix: all fields as sent; a stream always tells its usage."""
    fields = dict(chat.fields)
    if not chat.stream:
        return {"extra_body": fields}
    asked = fields.pop("stream_options", {})
    if not isinstance(asked, Mapping):
        raise InvalidInputError.of("stream_options", asked, "a mapping")
    return {"extra_body": {**fields, "stream_options": {**asked, "include_usage": True}}}


def _chunks(chat: Chat, answer_id: str, now: int) -> answers.Chunks:
    asked: Any = chat.fields.get("stream_options", {})
    return answers.Chunks(chat.model, answer_id, now, usage=asked.get("include_usage") is True)


async def _relay(
    request: web.BaseRequest, stream: ManagedStream, held: HeldPrefix, chunks: answers.Chunks, headers: Headers
) -> web.StreamResponse:
    """Pass a stream back. The head leaves with the first chunk: an error before that has a status of its own.

    Raises:
        CtxCacheError: before anything was passed back.
    """
    first = chunks.encode([await anext(stream), *stream.take_ready()])
    ids = _ids(stream.request_id, stream.log_id)
    response = web.StreamResponse(headers={**headers, **ids, **_EVENTS, _WAY: _way(held, stream.context_id)})
    if request.version < HttpVersion11:
        response.force_close()  # without chunks, the end of the connection is the end of the answer
    try:
        await response.prepare(request)
        await response.write(first)
        try:
            async for chunk in stream:
                await response.write(chunks.encode([chunk, *stream.take_ready()]))
        except CtxCacheError as error:
            last = answers.error_event(error)
        else:
            last = answers.DONE
        await response.write_eof(last)
    except ConnectionError:
        pass  # the client left; if the event loop notices first, this task is cancelled instead
    return response


def _way(held: HeldPrefix, context_id: str | None) -> str:
    """Say which way a chat went."""
    context_id = context_id or ""
    return f"{'created' if held.tell_created(context_id) else 'hit'}; {ascii(context_id)[1:-1]}"


def _ids(request_id: str | None, log_id: str | None) -> Headers:
    """Return the ids that the service gave a call, in place of the proxy's own."""
    ids = {"X-Request-Id": request_id, "X-Tt-Logid": log_id}
    return {name: value for name, value in ids.items() if value}


def _refuse(error: CtxCacheError, headers: Headers) -> web.Response:
    """Make the response of an error."""
    headers = {**headers, **_ids(error.request_id, error.log_id)}
    if isinstance(error, APIStatusError) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return json_response(answers.envelope(error), headers, answers.status(error))
