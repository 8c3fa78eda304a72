"""The fields of an error, whatever the shape of its body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import (
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
)
from ctxcache.error_bodies import is_error, read_error
from ctxcache.service_errors import error_from_answer, error_in, error_inside


def details(body):
    """What is read of a body: code, message, type, param."""
    found = read_error(body if isinstance(body, bytes) else json.dumps(body).encode())
    return tuple(found[name] for name in ("code", "message", "type", "param"))


GOOGLE = [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT"}}]
VOLC = {
    "ResponseMetadata": {"RequestId": "r", "Error": {"Code": "InvalidCredential", "Message": "bad key", "CodeN": 7}}
}
FASTAPI = {
    "detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}, {"msg": "and more"}]
}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (GOOGLE, ("400", "API key not valid", "", "")),
        (VOLC, ("InvalidCredential", "bad key", "", "")),
        (FASTAPI, ("", "messages.0: field required; and more", "", "messages.0")),
        ({"detail": "Not authenticated"}, ("", "Not authenticated", "", "")),
        ({"detail": {"error": {"message": "deep", "code": "X"}}}, ("X", "deep", "", "")),
        ({"detail": ["a", {"msg": "b"}]}, ("", "a; b", "", "")),
        ({"code": 1001, "msg": "no balance"}, ("1001", "no balance", "", "")),
        ({"error_code": 50004, "text": "NETWORK ERROR"}, ("50004", "NETWORK ERROR", "", "")),
        ({"errorCode": "E1", "errorMessage": "broke"}, ("E1", "broke", "", "")),
        ({"errors": [{"message": "first", "code": "A"}, {"message": "second"}]}, ("A", "first", "", "")),
        ({"errors": ["plain"]}, ("", "plain", "", "")),
        (
            {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
            ("400", "too long", "BadRequestError", ""),
        ),
        (
            {"type": "about:blank", "title": "Gone", "status": 404, "detail": "no such thing"},
            ("", "no such thing", "about:blank", ""),
        ),
        ({"title": "Gone", "status": 404}, ("", "Gone", "", "")),
        ({"error": "invalid_request", "error_description": "bad grant"}, ("", "bad grant", "", "")),
        ({"error": "Unauthorized", "message": "no key", "statusCode": 401}, ("", "no key", "", "")),
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
            ("", "slow", "rate_limit_error", ""),
        ),
        ({"error": {"message": "", "code": "X"}, "message": "outer"}, ("X", "", "", "")),
        (b"upstream connect error", ("", "upstream connect error", "", "")),
        ([], ("", "", "", "")),
        ([[]], ("", "", "", "")),
        ("text", ("", "text", "", "")),
        (7, ("", "", "", "")),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, list | dict) else None,
)
def test_shapes(body, found):
    """Code, message, type and parameter are found in each shape."""
    assert details(body) == found


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (GOOGLE, BadRequestError, 400),
        ([{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}], RateLimitError, 429),
        ({"error": {"message": "m", "status": "UNAUTHENTICATED"}}, AuthenticationError, 401),
        ({"error": {"message": "m", "status": "PERMISSION_DENIED"}}, PermissionDeniedError, 403),
        ({"error": {"message": "m", "type": "not_found_error"}}, NotFoundError, 404),
        ({"error": {"message": "m", "type": "NotFoundError"}}, NotFoundError, 404),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}, RateLimitError, 429),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, InternalServerError, 529),
        ({"type": "error", "error": {"type": "api_error", "message": "m"}}, InternalServerError, 500),
        ({"error": {"message": "m", "type": "invalid_request_error", "code": None}}, BadRequestError, 400),
        (
            {"error": {"type": "invalid_request_error", "code": "invalid_api_key"}},
            AuthenticationError,
            401,
        ),
        (
            {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}},
            QuotaExceededError,
            429,
        ),
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, RateLimitError, 429),
        ({"error": {"message": "m", "code": "context_length_exceeded"}}, BadRequestError, 400),
        ({"code": "QuotaExceeded", "msg": "m"}, QuotaExceededError, 429),
        ({"code": "OperationDenied.InvalidState", "message": "m"}, ContextBusyError, 403),
        ({"code": "NotFound.context_id", "message": "m"}, ContextGoneError, 404),
        ({"object": "error", "message": "m", "code": 404}, NotFoundError, 404),
        ({"title": "m", "status": 403, "detail": "d"}, PermissionDeniedError, 403),
        ({"success": False, "message": "m"}, InternalServerError, 500),
        ({"text": "NETWORK ERROR", "error_code": 50004}, InternalServerError, 500),
        ({"error": {"message": "m", "type": "new_kind"}}, InternalServerError, 500),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, list | dict) else None,
)
def test_one_class_inside_and_outside(body, kind, status):
    """An error in a stream has the class that it has as an answer of its own, and is seen to be an error."""
    data = json.dumps(body).encode()
    inside, outside = error_inside(data), error_from_answer(status, data)
    assert type(inside) is type(outside) is kind
    assert (inside.message.split(": ", 1)[1], inside.body) == (outside.message.split(": ", 1)[1], body)
    assert type(error_in(data)) is kind


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{"message": {}}], "error": None, "code": 5, "msg": "m"},
        {"type": "ping"},
        {"message": "queued", "status": "processing"},
        {"code": 0, "msg": "success"},
        {"code": "200", "message": "ok"},
        {"success": True, "message": "m"},
        {"error": None},
        {"error": ""},
        {"code": 7},
        {"id": "ctx-1", "model": "m", "ttl": 3600, "usage": {"total_tokens": 3}},
        [],
        ["error"],
        "error",
        7,
        None,
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_is_no_error(body):
    """An answer, a heartbeat, or a message without a code of failure is no error."""
    assert not is_error(body)
    assert error_in(json.dumps(body).encode()) is None


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Internal Server Error"},
        {"detail": [{"loc": ["body", "model"], "msg": "unknown", "type": "value_error"}]},
        {"message": "no Route matched with those values"},
        {"Message": "Forbidden", "error_description": "no access"},
    ],
)
def test_message_alone(body):
    """An object that holds a message and nothing else is an error, whatever the status."""
    assert is_error(body)
    assert isinstance(error_in(json.dumps(body).encode()), InternalServerError)
    assert not is_error({**body, "choices": [{}]})
    assert not is_error(dict.fromkeys(body, ""))


def test_what_is_no_json_is_no_error_in_an_answer():
    """Text is an error only where the status says so."""
    assert error_in(b"it broke") is None
    assert not isinstance(error_from_answer(500, b"it broke"), ProtocolError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "errors", "detail", "ResponseMetadata", "Error", "message", "msg", "code", "loc", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_shape(body):
    """Of any JSON the fields are text, and whether it is an error can be said."""
    assert all(isinstance(text, str) for text in details(body))
    assert is_error(body) in (True, False)
