"""One call that faults struck: refused, slow, cut or spoiled.

A cut raises `CutError`, a `ConnectionError`: the endpoints then do as they do when a client leaves, and store nothing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web

from ... import codec
from ...errors import APIStatusError, RateLimitError
from ...models import ChatRequest, ContextRequest, Usage
from ..bodies import Headers, json_response
from ..contexts import Contexts
from ..endpoints import Handling
from ..engines import Engine, Piece, Prompt
from ..generation import Generation
from ..rules import refusals
from ..rules.answers import DONE
from ..rules.pieces import Fragment
from ..rules.raised import code_of, pause_of, status_of
from ..rules.reply import Reply
from ..rules.served import AcceptedChat
from . import spoiling
from .plan import Limiter, Setting
from .record import RecordedCall

__all__ = ["CutError", "SpoiledCall"]

_DROPPED: Final = ("disconnect", "truncate", "stall")  # the turn is not stored
_ENDINGS: Final = (*_DROPPED, "corrupt", "lose_reply")


class CutError(ConnectionError):
    """The answer ends here."""


class SpoiledCall:
    """One call of create or chat.

    Args:
        request: the HTTP request.
        headers: the headers that identify the request.
        settings: the faults that strike the call, in the order set.
        record: takes note of the call.
        contexts: the contexts.
        now: tells seconds.
        sleep: waits seconds.

    Attributes:
        record: the record of the call.
        ending: how the answer ends, if not well.
        stream: the response of a stream; None for a plain answer, and before the engine writes.
        replies: the replies of an accepted chat.
    """

    _was_cut = False
    stream: "_Stream | None" = None
    replies: Sequence[Reply] = ()

    def __init__(
        self,
        request: web.BaseRequest,
        headers: Headers,
        settings: Sequence[Setting],
        record: RecordedCall,
        contexts: Contexts,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._http: Final = request
        self._headers: Final = headers
        self._settings: Final = settings
        self._faults: Final = {setting.fault.kind: setting.fault for setting in reversed(settings)}  # the first of each
        self.record: Final = record
        self._contexts: Final = contexts
        self._now: Final = now
        self._sleep: Final = sleep
        self._entered: Final[list[Limiter]] = []
        self.ending: Final = next((setting.fault for setting in settings if setting.fault.kind in _ENDINGS), None)
        self._body = b""  # of a plain answer that was truncated

    @property
    def handling(self) -> Handling:
        """How the endpoints handle the call."""
        return Handling(received=self._received, generation=partial(_Generation, self), stream=partial(_Stream, self))

    # --- before the call runs

    async def _received(self, request: ContextRequest | ChatRequest) -> None:
        self.record.request = request
        if isinstance(request, ChatRequest):
            self.record.context_id = request.context_id
            context = self._contexts.table.get(request.context_id)
            self.record.mode = "" if context is None else context.mode
        for setting in self._settings:
            if setting.fault.kind == "delay":
                await self._sleep(setting.fault.seconds or 0)
            refusal = self._refusal(setting)
            if refusal is not None:
                raise refusal
            if setting.fault.kind == "outage":
                self.cut_connection()
            if setting.fault.kind == "expire" and isinstance(request, ChatRequest):
                self._contexts.expire(request.context_id)
        if (
            self.ending is not None
            and isinstance(request, ContextRequest)
            and self.ending.kind in ("disconnect", "stall")
        ):
            await self.end()

    def _refusal(self, setting: Setting) -> APIStatusError | None:
        fault = setting.fault
        match fault.kind:
            case "fail":
                message, code = "The gateway was told to fail.", fault.code or ""
                return APIStatusError(message, status=fault.status, code=code, retry_after=fault.retry_after)
            case "rate_limit":
                message, code = "The gateway was told to limit the rate.", "RateLimitExceeded.EndpointRPMExceeded"
                return RateLimitError(message, status=429, code=code, retry_after=fault.retry_after)
            case "busy":
                return refusals.busy()
            case "limits" if setting.limiter is not None:
                refusal = setting.limiter.enter(self._now())
                if refusal is None:
                    self._entered.append(setting.limiter)
                return refusal
            case _:
                return None

    def leave(self, now: float) -> None:
        """End the call for those who count."""
        self.record.ended = now
        self.record.text = "".join(reply.text for reply in self.replies[:1])
        for limiter in self._entered:
            limiter.leave()

    # --- while the engine writes

    def engine(self, engine: Engine) -> Engine:
        """Return who writes the answer."""
        fault = self._faults.get("reply")
        return engine if fault is None else _Told(fault.text or "")

    async def before_first(self) -> None:
        """Wait before the first fragment."""
        if fault := self._faults.get("slow_first_token"):
            await self._sleep(fault.seconds or 0)

    @property
    def drops_turn(self) -> bool:
        """Whether the answer never comes to an end."""
        return self.ending is not None and self.ending.kind in _DROPPED

    async def end(self) -> None:
        """End an answer early, as the fault says.

        Raises:
            CutError: always.
        """
        ending = self.ending
        if self._was_cut:  # aiohttp ends a response once more
            raise CutError
        if ending is not None and ending.kind == "truncate":
            if self.stream is not None:
                await self.stream.finish()
            self._body = spoiling.half_an_answer("".join(reply.text for reply in self.replies[:1]))
            raise CutError
        if ending is not None and ending.kind == "stall":
            await self._sleep(ending.seconds or 0)
            self.record.outlasted = True
        self.cut_connection()

    def cut_connection(self) -> None:
        """Cut the connection.

        Raises:
            CutError: always.
        """
        self._was_cut = True
        if self._http.transport is not None:
            self._http.transport.abort()
        raise CutError

    def cancelled(self) -> None:
        """Take note that the client has left, unless the connection was cut here."""
        self.record.left = not self._was_cut

    # --- the answer

    def cut_answer(self) -> web.StreamResponse:
        """Return the response of a call that was cut: half of a plain answer, or what a cut connection never sends."""
        if not self._body:
            return web.Response()
        self.record.status = 200
        return json_response(self._body, self._headers)

    def spoil(self, response: web.StreamResponse) -> web.StreamResponse:
        """Return a whole plain answer as the faults leave it."""
        if not isinstance(response, web.Response):
            return response
        body = bytes(response.body or b"")  # type: ignore[arg-type]  # made of bytes
        if self.record.endpoint == "create":
            created = codec.decode_object(body)
            self.record.context_id, self.record.mode, self.record.stored = created["id"], created["mode"], True
        body = self.change_usage(body)
        if self.ending is not None and self.ending.kind == "lose_reply":
            self.cut_connection()
        if self.ending is not None and self.ending.kind == "truncate":  # of a create
            body = spoiling.half(body)
        if self.ending is not None and self.ending.kind == "corrupt":
            body = spoiling.garble(body)
        self.record.status, self.record.whole = response.status, self.ending is None
        return json_response(body, self._headers, response.status)

    def refused(self, error: APIStatusError) -> None:
        """Take note of a refusal."""
        self.record.status, self.record.code = status_of(error), code_of(error)
        self.record.retry_after = pause_of(error)

    def change_usage(self, body: bytes) -> bytes:
        """Return a plain answer with the usage that the faults leave."""
        for kind in ("evict", "no_usage"):
            if kind in self._faults:
                body = spoiling.change_usage(body, keep=kind == "evict")
        return body

    def change_event(self, event: bytes) -> bytes | None:
        """Return an event with the usage that the faults leave; None for nothing."""
        for kind in ("evict", "no_usage"):
            if event is not None and kind in self._faults:
                changed = spoiling.change_usage_of_event(event, keep=kind == "evict")
                if changed is None:
                    return None
                event = changed
        return event


class _Told:
    """An engine that writes a given text."""

    def __init__(self, text: str) -> None:
        self._text: Final = text

    async def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece | list[Piece]]:
        yield self._text


class _Generation(Generation):
    """The fragments of a spoiled call; those of an answer that is cut have no end."""

    def __init__(self, call: SpoiledCall, engine: Engine, chat: AcceptedChat, ahead: int, client: str = "") -> None:
        super().__init__(call.engine(engine), chat, ahead, client)
        self._call: Final = call
        self._begun = self._over = False
        call.replies = chat.replies

    async def take(self) -> list[Fragment]:
        """Return the waiting fragments, as `Generation.take`."""
        if not self._begun:
            self._begun = True
            await self._call.before_first()
        if self._over:  # every chunk was sent before the cut was due
            await self._call.end()
        fragments = await super().take()
        if self._call.drops_turn and self.done:
            self.done, self._over = False, True
        return fragments

    def usage(self, counted: Usage) -> Usage:
        """Return the usage of the answer, whose turn has just been stored."""
        record = self._call.record
        record.usage, record.stored = super().usage(counted), record.mode == "session"
        return record.usage


class _Stream(web.StreamResponse):
    """The response of a spoiled stream, written event by event."""

    def __init__(self, call: SpoiledCall, *, headers: Headers) -> None:
        super().__init__(headers=headers)
        self._call: Final = call
        self._chunks = 0
        call.stream = self

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send the head, unless nothing of the answer is sent."""
        ending = self._call.ending
        if ending is not None and not ending.after_chunks and ending.kind != "corrupt":
            if ending.kind == "lose_reply":
                return None
            if ending.kind != "truncate":
                await self._call.end()
        self._call.record.status = 200
        return await super().prepare(request)

    async def write(self, data: Any) -> None:
        """Send whole events."""
        for event in spoiling.events(data):
            changed = self._call.change_event(event)
            if changed is not None:
                await self._send(changed)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the last events, and end the answer."""
        await self.write(data)
        ending = self._call.ending
        if ending is not None and ending.kind == "lose_reply":
            self._call.cut_connection()
        if data.endswith(DONE):  # aiohttp calls this again, without data
            self._call.record.whole = ending is None  # known before the client can know
        await self.finish()

    async def finish(self) -> None:
        """End the answer in good order."""
        await super().write_eof()

    async def _send(self, event: bytes) -> None:
        ending = self._call.ending
        if ending is None or self._chunks < (ending.after_chunks or 0):
            self._chunks += 1
            await super().write(event)
        elif self._call.drops_turn:
            await self._call.end()
        elif ending.kind == "corrupt":
            await super().write(spoiling.GARBAGE if self._chunks == (ending.after_chunks or 0) else event)
            self._chunks += 1
