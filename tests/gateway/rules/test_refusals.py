"""Refusals, read by the client's own table of errors."""

from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import codec, service_errors
from ctxcache.errors import APIStatusError, InvalidInputError, RateLimitError
from ctxcache.gateway.rules import refusals

REFUSALS: list[Callable[[], APIStatusError]] = [
    lambda: refusals.bad_field(InvalidInputError.of("ttl", 5, "more")),
    lambda: refusals.bad_field(
        InvalidInputError("context_id: missing", field="context_id", value="UNSET", allowed="some")
    ),
    lambda: refusals.bad_http(),
    lambda: refusals.bad_key(),
    lambda: refusals.bad_request("Content-Type", "No JSON.", status=415),
    lambda: refusals.busy(),
    lambda: refusals.context_full(5, 4),
    lambda: refusals.context_not_found("ctx-1"),
    lambda: refusals.engine_failed(),
    lambda: refusals.full(5),
    lambda: refusals.memory_full(5),
    lambda: refusals.method_not_allowed("POST"),
    lambda: refusals.model_not_found("m"),
    lambda: refusals.no_connection(5),
    lambda: refusals.not_json("no"),
    lambda: refusals.out_of_context(5, 4),
    lambda: refusals.overloaded(),
    lambda: refusals.path_not_found(["/v1/context/create"]),
    lambda: refusals.shutting_down(),
    lambda: refusals.slow_head(5.0),
    lambda: refusals.too_large(5),
    lambda: refusals.wrong_host(),
]


@pytest.mark.parametrize("refuse", REFUSALS)
def test_the_client_reads_what_the_gateway_meant(refuse: Callable[[], APIStatusError]) -> None:
    """The client reads each refusal with the same class, status, code, param and request id."""
    refused = refuse()
    envelope = refusals.envelope(refused, "021733913813000abc")
    read: Any = service_errors.error_from_answer(refused.status or 0, codec.encode(envelope))
    assert type(read) is type(refused)
    assert (read.status, read.code, read.param) == (refused.status, refused.code, refused.param)
    assert (read.type, read.request_id) == (envelope["error"]["type"], "021733913813000abc")
    assert refused.message in read.message


def test_each_status_has_its_type() -> None:
    """The `type` is the service's name for the status; plain HTTP errors have names of the same form."""
    types = {
        refused.status: refusals.envelope(refused, "")["error"]["type"] for refused in (refuse() for refuse in REFUSALS)
    }
    assert types == {
        400: "BadRequest",
        401: "Unauthorized",
        403: "Forbidden",
        404: "NotFound",
        405: "MethodNotAllowed",
        408: "RequestTimeout",
        413: "RequestEntityTooLarge",
        415: "UnsupportedMediaType",
        421: "MisdirectedRequest",
        429: "TooManyRequests",
        500: "InternalServerError",
        503: "ServiceUnavailable",
    }


def test_a_long_name_is_shortened() -> None:
    """A message shows at most 80 characters of a name."""
    assert f"'{'x' * 79}…'" in refusals.model_not_found("x" * 81).message
    assert f"'{'x' * 80}'" in refusals.context_not_found("x" * 80).message


@pytest.mark.parametrize(
    ("status", "retry_after", "more"),
    [
        (429, None, {}),
        (None, None, {}),
        (503, 7.5, {"status": 503, "retry_after": 7.5}),
        (429, 0, {"retry_after": 0}),
        (429, float("nan"), {}),
    ],
)
def test_an_event_says_what_a_status_line_would(status: Any, retry_after: Any, more: dict[str, Any]) -> None:
    """The event of an error has an unusual status and the pause beside the envelope, and the client reads both."""
    error = RateLimitError("slow", status=status, retry_after=retry_after)
    found = refusals.event_envelope(error, "id")
    assert found["error"] == {**refusals.envelope(error, "id")["error"], **more}
    read = service_errors.error_inside(codec.encode(found))
    assert (type(read), read.status) == (RateLimitError, status or 429)
    assert read.retry_after == more.get("retry_after")
