"""Refusals, read by the client's own table."""

from typing import Any

import pytest

from ctxcache import codec, service_errors
from ctxcache.errors import APIStatusError, InvalidInputError
from ctxcache.gateway.rules import refusals

REFUSALS = [
    refusals.bad_field(InvalidInputError.of("ttl", 5, "more")),
    refusals.bad_field(InvalidInputError("context_id: missing", field="context_id", value="UNSET", allowed="some")),
    refusals.bad_http(),
    refusals.bad_key(),
    refusals.bad_request("Content-Type", "No JSON.", status=415),
    refusals.busy(),
    refusals.context_not_found("ctx-1"),
    refusals.engine_failed(),
    refusals.full(5),
    refusals.method_not_allowed("POST"),
    refusals.model_not_found("m"),
    refusals.not_json("no"),
    refusals.out_of_context(5, 4),
    refusals.path_not_found(),
    refusals.too_large(5),
]


@pytest.mark.parametrize("refused", REFUSALS, ids=lambda refused: f"{refused.status}-{refused.code}-{refused.param}")
def test_the_client_reads_what_the_gateway_meant(refused: APIStatusError) -> None:
    """Each refusal is the same class, status, code, param and request id on the other side of the wire."""
    envelope = refusals.envelope(refused, "021733913813000abc")
    read: Any = service_errors.error_from_answer(refused.status or 0, codec.encode(envelope))
    assert type(read) is type(refused)
    assert (read.status, read.code, read.param) == (refused.status, refused.code, refused.param)
    assert (read.type, read.request_id) == (envelope["error"]["type"], "021733913813000abc")
    assert refused.message in read.message


def test_each_status_has_its_type() -> None:
    """As the service names them, the plain ones of HTTP likewise."""
    types = {refused.status: refusals.envelope(refused, "")["error"]["type"] for refused in REFUSALS}
    assert types == {
        400: "BadRequest",
        401: "Unauthorized",
        403: "Forbidden",
        404: "NotFound",
        405: "MethodNotAllowed",
        413: "RequestEntityTooLarge",
        415: "UnsupportedMediaType",
        429: "TooManyRequests",
        500: "InternalServerError",
    }


def test_a_name_that_is_not_found_is_not_repeated_without_end() -> None:
    """A message shows 80 characters of it."""
    assert f"'{'x' * 79}…'" in refusals.model_not_found("x" * 81).message
    assert f"'{'x' * 80}'" in refusals.context_not_found("x" * 80).message
