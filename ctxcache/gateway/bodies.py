"""The bodies of HTTP: requests read within limits, responses in JSON."""

import asyncio
from typing import Final, TypeAlias, TypeVar

import attrs
from aiohttp import web

from .. import codec
from ..errors import APIStatusError, InvalidInputError, ProtocolError
from ..models import ChatRequest, ContextRequest
from .rules import refusals

__all__ = ["BodyLimits", "Headers", "json_response", "read_request", "refuse"]

_JSON: Final = "application/json"

RequestT = TypeVar("RequestT", ContextRequest, ChatRequest)
Headers: TypeAlias = dict[str, str]


@attrs.frozen(kw_only=True)
class BodyLimits:
    """Limits of a request body.

    Attributes:
        size: the most bytes.
        seconds: the longest wait for the next bytes.
    """

    size: int = 64 * 1024 * 1024
    seconds: float = 60.0


def json_response(body: bytes, headers: Headers, status: int = 200) -> web.Response:
    """Make a response from encoded JSON."""
    return web.Response(body=body, status=status, headers={**headers, "Content-Type": _JSON})


def refuse(error: APIStatusError, headers: Headers) -> web.Response:
    """Make the response of an error: the service's envelope, under the error's status."""
    body = codec.encode(refusals.envelope(error, headers["X-Request-Id"]))
    return json_response(body, headers, error.status or 500)


async def read_request(kind: type[RequestT], request: web.BaseRequest, limits: BodyLimits) -> RequestT:
    """Read a request's JSON into a checked model.

    Raises:
        APIStatusError: 415 for another Content-Type or a compressed body, 413 for too many bytes, 408 for a body that
            does not arrive, 400 for everything else that cannot be read.
    """
    if request.content_type != _JSON:
        raise refusals.bad_request("Content-Type", f"The Content-Type must be {_JSON}.", status=415)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise refusals.bad_request("Content-Encoding", "The body must not be compressed.", status=415)
    body = await _read(request, limits)
    try:
        return codec.decode_request(kind, body)
    except InvalidInputError as error:
        refusal = refusals.bad_field(error)
    except ProtocolError:
        refusal = refusals.not_json("it is not a JSON object in UTF-8")
    raise refusal  # here: the refusal has no context that could show the body


async def _read(request: web.BaseRequest, limits: BodyLimits) -> bytes:
    if (request.content_length or 0) > limits.size:
        raise refusals.too_large(limits.size)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts: list[bytes] = []
    left = limits.size
    try:
        while part := await _next_part(request, limits.seconds):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise refusals.too_large(limits.size)
    except TimeoutError:
        refusal = refusals.bad_request("", f"No more of the request body came within {limits.seconds:g} s.", status=408)
    except web.RequestPayloadError:
        refusal = refusals.bad_http()
    else:
        return b"".join(parts)
    raise refusal


async def _next_part(request: web.BaseRequest, seconds: float) -> bytes:
    async with asyncio.timeout(seconds):
        return await request.content.readany()
