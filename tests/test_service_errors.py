"""Which error a body is: by its code first, then by its status, whatever the envelope."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcache import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    CtxCacheError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
)
from ctxcache.service_errors import error_from_answer, error_instead_of_stream, is_context_gone

CODES = {
    BadRequestError: [
        "MissingParameter",
        "MissingParameter.messages",
        "InvalidParameter",
        "InvalidParameter.ttl",
        "OutofContextError",
        "SensitiveContentDetected",
        "SensitiveContentDetected.SevereViolation",
        "InputTextSensitiveContentDetected",
        "OutputTextSensitiveContentDetected",
        "InvalidArgumentError",
        "InvalidArgumentError.UnknownRole",
    ],
    AuthenticationError: ["AuthenticationError"],
    PermissionDeniedError: [
        "AccessDenied",
        "AccountOverdueError",
        "OperationDenied.ServiceNotOpen",
        "OperationDenied.ServiceOverdue",
    ],
    ContextBusyError: ["OperationDenied.InvalidState"],
    NotFoundError: ["InvalidEndpointOrModel.NotFound", "ModelNotOpen", "UnsupportedModel"],
    ContextGoneError: [
        "NotFound.context_id",
        "NotFound",
        "InvalidParameter.PreviousResponseNotFound",
        "invalid_context_id",
        "invalid_id",
    ],
    RateLimitError: [
        "RateLimitExceeded.EndpointTPMExceeded",
        "RateLimitExceeded",
        "ModelAccountRpmRateLimitExceeded",
        "ModelAccountTpmRateLimitExceeded",
        "APIAccountRpmRateLimitExceeded",
        "AccountRateLimitExceeded",
        "ServerOverloaded",
        "RequestBurstTooFast",
        "InflightBatchsizeExceeded",
    ],
    QuotaExceededError: ["QuotaExceeded", "SetLimitExceeded"],
    InternalServerError: ["InternalServiceError"],
}
STATUS = {
    BadRequestError: 400,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    ContextBusyError: 403,
    NotFoundError: 404,
    ContextGoneError: 404,
    RateLimitError: 429,
    QuotaExceededError: 429,
    InternalServerError: 500,
}
BY_STATUS = {401: AuthenticationError, 402: QuotaExceededError, 403: PermissionDeniedError}
BY_STATUS |= {404: NotFoundError, 429: RateLimitError}


def envelope(**fields):
    """The service's error envelope."""
    return json.dumps({"error": fields}).encode()


# --- codes and statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in CODES.items() for code in codes])
def test_code_first(kind, code):
    """A documented code decides, whatever the status says; inside a stream it brings its own status."""
    for status in (STATUS[kind], 404, 400):
        error = error_from_answer(status, envelope(code=code, message="m", type="t", param="p"))
        assert type(error) is kind
        assert (error.status, error.code, error.type, error.param) == (status, code, "t", "p")
        assert error.message == f"{status} {code}: m"
    inside = error_instead_of_stream(envelope(code=code, message="m"), "application/json")
    assert type(inside) is kind
    assert inside.status == STATUS[kind]


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 432), 451, 499, *range(500, 512), 520, 529, 599, 999])
@pytest.mark.parametrize("code", ["", "SomethingNew", "SomethingNew.Here", "ServerOverloadedX", "ratelimitexceeded"])
def test_status_second(status, code):
    """Without a code that is known, the status decides."""
    error = error_from_answer(status, envelope(code=code, message="m") if code else b"")
    expected = InternalServerError if status >= 500 or status == 303 else BY_STATUS.get(status, BadRequestError)
    assert type(error) is expected
    assert error.status == status


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_status_that_ends_nothing(status):
    """A status that ends no request says nothing about its outcome."""
    assert isinstance(error_from_answer(status, b""), ProtocolError)


# --- envelopes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "400: "),
        (b"{}", "400: "),
        (b"null", "400: "),
        (b"[]", "400: "),
        (b"7", "400: "),
        (b'"it broke"', "400: it broke"),
        (b'{"error":null}', "400: "),
        (b'{"error":{}}', "400: "),
        (b'{"error":[]}', "400: "),
        (b'{"error":"it broke"}', "400: it broke"),
        (b'{"error":{"message":"it broke"}}', "400: it broke"),
        (b'{"error":{"message":null,"code":null,"type":null,"param":null}}', "400: "),
        (b'{"error":{"message":["it"],"code":{},"type":7.5,"param":true}}', "400: "),
        (b'{"error":{"message":"it broke","code":7}}', "400 7: it broke"),
        (b'{"code":"X","message":"it broke"}', "400 X: it broke"),
        (b'{"detail":"it broke"}', "400: it broke"),
        (b'{"message":"it broke"}', "400: it broke"),
        (b"it broke", "400: it broke"),
        (b"  it\r\n\tbroke \n", "400: it broke"),
        (b"<html><h1>502 Bad Gateway</h1></html>", "400: (an HTML page)"),
        (b"\n <!doctype html>", "400: (an HTML page)"),
        (b"\xff\xfe", "400: \ufffd\ufffd"),
        (b'{"error":', '400: {"error":'),
    ],
)
def test_envelopes(body, message):
    """Any body makes an error with what could be read of it in one line, and the whole as `body`."""
    error = error_from_answer(400, body)
    assert type(error) is BadRequestError
    assert error.message == message == str(error)
    try:
        assert error.body == json.loads(body)
    except ValueError:
        assert error.body == body.decode("utf-8", "replace")
    assert all(isinstance(value, str) for value in (error.code, error.type, error.param))


def test_long_messages():
    """A message is shortened; the body is kept."""
    error = error_from_answer(400, envelope(message="x" * 5000))
    assert len(error.message) < 520
    assert error.message.endswith("…")
    assert error.body["error"]["message"] == "x" * 5000
    assert len(error_from_answer(400, b"y" * 50_000).body) == 2000


@pytest.mark.parametrize(
    ("message", "request_id"),
    [
        ("It broke. Request id: 0217-ab.c_d", "0217-ab.c_d"),
        ("It broke. request ID:  x9", "x9"),
        ("It broke.", None),
        ("Request id: ", None),
    ],
)
def test_request_id_in_the_message(message, request_id):
    """The request id is read from the message, where the service likes to put it."""
    assert error_from_answer(500, envelope(message=message)).request_id == request_id


def test_retry_after_is_kept():
    """What the service asks to wait stands on the error."""
    assert error_from_answer(429, b"", retry_after=7.5).retry_after == 7.5


def test_redirects_say_so():
    """The error of a redirect says what to do; a message of the server's own wins."""
    assert "base_url" in error_from_answer(307, b"").message
    assert error_from_answer(307, b"over there").message == "307: over there"


ENVELOPE_KEYS = st.sampled_from(["error", "code", "message", "param", "type"])
ODD_JSON = st.recursive(
    st.none() | st.text() | st.floats() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(ENVELOPE_KEYS | st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.integers(200, 999), st.binary(max_size=200) | ODD_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body(status, body):
    """Any body with any status makes an error of the family."""
    error = error_from_answer(status, body)
    assert isinstance(error, APIStatusError)
    assert error.status == status
    assert "\n" not in str(error)


# --- contexts that are gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "param", "message"),
    [
        (404, "NotFound.context_id", "", ""),
        (404, "NotFound.ContextId", "", ""),
        (400, "NotFound.Context", "", ""),
        (400, "InvalidParameter.PreviousResponseNotFound", "", ""),
        (400, "InvalidParameter", "context_id", "bad"),
        (400, "InvalidParameter", "previous_response_id", ""),
        (400, "InvalidParameter.x", "context_id", ""),
        (400, "invalid_context_id", "", ""),
        (404, "invalid_id", "", ""),
        (404, "", "", "The specified context is not found"),
        (400, "", "", "Context ctx-20241211104333-12345 has expired"),
        (400, "", "", "The context is invalid. Request id: 1"),
        (403, "", "", "context ctx-1 does not exist"),
        (410, "", "", "CONTEXT EXPIRED"),
        (400, "", "", "context_id ctx-1 not found"),
        (404, "", "", "The context_id is invalid or has expired"),
        (400, "InvalidParameter", "", "the context `ctx-1`\nwas not found"),
        (None, "NotFound.context_id", "", ""),
        (None, "", "", "context ctx-1 not found"),
    ],
)
def test_gone(status, code, param, message):
    """Every form seen of a context that expired or never was is a `ContextGoneError`."""
    assert is_context_gone(status, code, param, message)
    if status is not None:
        error = error_from_answer(status, envelope(code=code, param=param, message=message))
        assert type(error) is ContextGoneError


@pytest.mark.parametrize(
    ("status", "code", "param", "message"),
    [
        (404, "InvalidEndpointOrModel.NotFound", "", "The model or endpoint does not exist"),
        (404, "", "", "page not found"),
        (404, "", "", "model not found"),
        (400, "OutofContextError", "", "Total tokens exceed the context, which is invalid"),
        (400, "", "", "This model's maximum context length is 32768 tokens: invalid request"),
        (400, "", "", "the context window has expired patience: invalid"),
        (400, "InvalidParameter", "ttl", "ttl is invalid"),
        (400, "InvalidParameter", "messages", "messages: invalid role"),
        (403, "OperationDenied.InvalidState", "", "The specified context is in invalid state: InProgress."),
        (403, "", "", "The specified context is in invalid state: InProgress. Request id: 1"),
        (403, "AccessDenied", "", "no access to this context: it does not exist for you"),
        (401, "", "", "context ctx-1 not found"),
        (429, "", "", "context ctx-1 not found"),
        (500, "", "", "context deadline: invalid"),
        (502, "", "", "context ctx-1 not found"),
        (400, "", "", "the contextual hint is invalid"),
        (400, "", "", "invalid context"),
        (400, "", "", ""),
    ],
)
def test_not_gone(status, code, param, message):
    """What only looks like it is not: creating the context again would lose it, or not help."""
    assert type(error_from_answer(status, envelope(code=code, param=param, message=message))) is not ContextGoneError


def test_busy_without_a_code():
    """A busy context is known by its message as well, where a gateway dropped the code."""
    message = "The specified context is in invalid state: InProgress. Request id: 1"
    assert type(error_from_answer(403, envelope(message=message))) is ContextBusyError


def test_not_a_stream():
    """What is no error either is a `ProtocolError` with the beginning of it."""
    error = error_instead_of_stream(b"<html>" + b"x" * 5000, "text/html")
    assert type(error) is ProtocolError
    assert len(error.body) == 2000
    for body in (b"{}", b'{"error":null}', b'{"choices":[{}]}'):
        assert type(error_instead_of_stream(body, "application/json")) is ProtocolError
    assert isinstance(error_instead_of_stream(b'{"error"', "application/json"), CtxCacheError)
