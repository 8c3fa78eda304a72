"""The bodies of HTTP: requests read within limits, responses in JSON.

A request body is bounded before anything is made of the bytes: by size, by the number of JSON values, and together with
all other requests by memory. Larger bodies are decoded and measured in a thread, one at a time, so that the event loop
goes on. Only a long text holds the interpreter while C decodes the text: 2.5 ms a megabyte at most, which are 14 ms for
a default window. Everything else lets go after five.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

import attrs
from aiohttp import HttpVersion11, web

from .. import codec
from ..errors import APIStatusError, InvalidInputError, ProtocolError
from ..models import ChatRequest, ContextRequest
from .rules import refusals
from .rules.clients import Client
from .rules.json_items import count_items
from .rules.raised import pause_headers, status_of
from .rules.sizes import SizedMessage

__all__ = [
    "CLIENT",
    "Bodies",
    "Handler",
    "Headers",
    "Received",
    "Reservation",
    "Routes",
    "decode_object",
    "json_response",
    "refuse",
]

CLIENT: Final = web.RequestKey("client", Client)  # of the request's key

_JSON: Final = "application/json"
_MAX_ITEMS: Final = 100_000  # decoded in 20 ms
_IN_THREAD: Final = 16 * 1024  # bytes: smaller bodies are decoded and measured in 3 ms at most
_AN_ITERATION: Final = 64 * 1024  # bytes taken in an iteration of the event loop: some milliseconds
_SLOWEST: Final = 16 * 1024  # bytes a second of a body that takes longer than the limit
_MEMORY_A_BYTE: Final = 4  # of text
_MEMORY_A_VALUE: Final = 200

_NO_OBJECT: Final = "it is not a JSON object in UTF-8"

DecodedT = TypeVar("DecodedT")
RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)
Headers: TypeAlias = dict[str, str]
Handler: TypeAlias = Callable[[web.BaseRequest, Headers], Awaitable[web.StreamResponse]]
Routes: TypeAlias = Mapping[str, tuple[tuple[str, ...], Handler]]


@attrs.frozen
class Received(Generic[RequestT]):
    """A request that was read and measured.

    Attributes:
        request: the request.
        messages: the request's messages with their sizes.
    """

    request: RequestT
    messages: tuple[SizedMessage, ...]


def json_response(body: bytes, headers: Headers, status: int = 200) -> web.Response:
    """Make a response from encoded JSON."""
    return web.Response(body=body, status=status, headers={**headers, "Content-Type": _JSON})


def refuse(error: APIStatusError, headers: Headers) -> web.Response:
    """Make the response of an error: the service's envelope, under the error's status."""
    body = codec.encode(refusals.envelope(error, headers["X-Request-Id"]))
    return json_response(body, {**headers, **pause_headers(error)}, status_of(error))


class Reservation:
    """The memory that one request takes of that for all requests, given back at the end of the `with` block."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: "Bodies") -> None:
        self._bodies: Final = bodies
        self._size = 0

    def grow(self, size: int) -> None:
        """Take some bytes more.

        Raises:
            APIStatusError: so many are not left.
        """
        if size > self._bodies.memory_left:
            raise refusals.overloaded()
        self._bodies.memory_left -= size
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bodies.memory_left += self._size


class Bodies:
    """Reads request bodies.

    Args:
        measure: measures the messages of a request; called in a thread for larger bodies.
        size: the most bytes of a body.
        seconds: the time for a body to arrive; a second more for every 16 KiB received.
        memory: the bytes of memory for all requests under way.

    Attributes:
        memory_left: how much of `memory` is not taken.
    """

    def __init__(
        self,
        measure: Callable[[ContextRequest | ChatRequest], tuple[SizedMessage, ...]],
        *,
        size: int,
        seconds: float,
        memory: int,
    ) -> None:
        self.memory_left = memory
        self._measure: Final = measure
        self._size: Final = size
        self._seconds: Final = seconds
        self._thread: ThreadPoolExecutor | None = None
        self._iteration_left = _AN_ITERATION

    def reserve(self) -> Reservation:
        """Begin a reservation of nothing."""
        return Reservation(self)

    def close(self) -> None:
        """End the thread, without a wait; the next large body starts another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)

    async def read(
        self, kind: type[RequestT], request: web.BaseRequest, reservation: Reservation
    ) -> Received[RequestT]:
        """Read a request's JSON into a checked model, and measure the messages.

        Args:
            kind: the model.
            request: the HTTP request.
            reservation: takes the memory, as far as the body tells.

        Raises:
            APIStatusError: 415 for another Content-Type or a compressed body, 413 for too many bytes, 408 for a body
                that does not arrive, 429 for more memory than is left, 400 for everything else that cannot be read.
        """
        return await self._read(partial(self._decode, kind), request, reservation)

    async def read_by(
        self, decode: Callable[[bytes], DecodedT], request: web.BaseRequest, reservation: Reservation
    ) -> DecodedT:
        """Read a request's body by a function.

        Args:
            decode: reads the JSON, such as `decode_object`; called in a thread for larger bodies.
            request: the HTTP request.
            reservation: takes the memory, as far as the body tells.

        Raises:
            APIStatusError: as `read`, or raised by `decode`.
        """
        return await self._read(decode, request, reservation)

    async def _read(
        self, decode: Callable[[bytes], DecodedT], request: web.BaseRequest, reservation: Reservation
    ) -> DecodedT:
        if request.content_type != _JSON:
            raise refusals.bad_request("Content-Type", f"The Content-Type must be {_JSON}.", status=415)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise refusals.bad_request("Content-Encoding", "The body must not be compressed.", status=415)
        body = await self._receive(request, reservation)
        if len(body) <= _IN_THREAD:
            reservation.grow(_memory(body, count_items(body)))
            return decode(bytes(body))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "ctxcache-bodies")
        decoding = asyncio.get_running_loop().run_in_executor(self._thread, _decode_large, decode, body)
        decoded, memory = await decoding
        reservation.grow(memory)
        return decoded

    def _decode(self, kind: type[RequestT], body: bytes) -> Received[RequestT]:
        try:
            request = codec.decode_request(kind, body)
        except InvalidInputError as error:
            refusal = refusals.bad_field(error)
        except ProtocolError:
            refusal = refusals.not_json(_NO_OBJECT)
        else:
            return Received(request, self._measure(request))
        raise refusal  # here: the refusal has no context that could show the body

    async def _receive(self, request: web.BaseRequest, reservation: Reservation) -> bytearray:
        most = self._size
        if (request.content_length or 0) > most:
            raise refusals.too_large(most)
        await _answer_expectation(request)
        body = bytearray()
        start = asyncio.get_running_loop().time()
        try:
            while part := await self._next_part(request, start + len(body) / _SLOWEST):
                if len(body) + len(part) > most:
                    raise refusals.too_large(most)
                reservation.grow(len(part))
                await self._wait_for_room(len(part))
                body += part
        except TimeoutError:
            message = f"The request body did not come within {self._seconds:g} s."
            refusal = refusals.bad_request("", message, status=408)
        except web.RequestPayloadError:
            refusal = refusals.bad_http()
        else:
            return body
        raise refusal

    async def _wait_for_room(self, size: int) -> None:
        """Wait for an iteration of the event loop with room for so many bytes; many clients at once share several."""
        while self._iteration_left <= 0:  # noqa: ASYNC110  # an iteration has no event
            await asyncio.sleep(0)
        self._iteration_left -= size
        if self._iteration_left <= 0:
            asyncio.get_running_loop().call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        self._iteration_left = _AN_ITERATION

    async def _next_part(self, request: web.BaseRequest, start: float) -> bytes:
        if request.content.is_eof():  # the usual case: everything is here
            return await request.content.readany()
        async with asyncio.timeout_at(start + self._seconds):
            return await request.content.readany()


def _memory(body: bytearray, items: int) -> int:
    """Return how much memory a request of so many values takes beside the bytes of the body, at most."""
    return (_MEMORY_A_BYTE - 1) * len(body) + _MEMORY_A_VALUE * items


def _decode_large(decode: Callable[[bytes], DecodedT], body: bytearray) -> tuple[DecodedT, int]:
    """Decode a body in the thread; return the memory that the request takes, too."""
    items = count_items(body)
    if items > _MAX_ITEMS:
        raise refusals.not_json(f"it has more than {_MAX_ITEMS} values")
    return decode(bytes(body)), _memory(body, items)


def decode_object(body: bytes) -> dict[str, Any]:
    """Decode the JSON object of a body, whatever the fields are.

    Raises:
        APIStatusError: 400 for a body that is none.
    """
    try:
        return codec.decode_object(body)
    except ProtocolError:
        pass
    raise refusals.not_json(_NO_OBJECT)


async def _answer_expectation(request: web.BaseRequest) -> None:
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return  # RFC 9110, 10.1.1: an expectation of HTTP/1.0 is ignored
    if expected.lower() != "100-continue":
        raise refusals.bad_request("Expect", "The only expectation that can be met is 100-continue.", status=417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
