"""The head of an answer: a mapping that prints no secret."""

import copy
import pickle
from collections.abc import Mapping

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ctxcache.config import Secret
from ctxcache.response_head import NO_HEAD, ResponseHead, is_secret_name

KEY = "sk-0123456789abcdef"


def test_names_in_any_case() -> None:
    """A header is found whatever the case of its name, and listed in lower case."""
    head = ResponseHead(200, {"X-Request-ID": "r-1", "date": "today"})
    assert head["x-request-id"] == head["X-REQUEST-ID"] == head.get("X-Request-Id") == "r-1"
    assert ("DATE" in head, "etag" in head, 7 in head, head.get("etag", "none")) == (True, False, False, "none")
    assert dict(head) == {"x-request-id": "r-1", "date": "today"}
    assert (len(head), head.status) == (2, 200)
    with pytest.raises(KeyError, match="ETag"):
        head["ETag"]


def test_read_only() -> None:
    """Nobody can change a head, nor through a head what the transport holds."""
    received = CIMultiDict({"A": "1"})
    head = ResponseHead(200, CIMultiDictProxy(received))
    assert isinstance(head, Mapping)
    with pytest.raises(TypeError):
        head["a"] = "2"  # type: ignore[index]
    assert received == {"A": "1"}


def test_several_of_one_name() -> None:
    """The values of headers with the same name are joined, in order."""
    received: CIMultiDict[str] = CIMultiDict([("Vary", "accept"), ("Date", "today"), ("VARY", "origin")])
    assert dict(ResponseHead(200, CIMultiDictProxy(received))) == {"vary": "accept, origin", "date": "today"}


def test_bytes_that_are_no_text() -> None:
    """Bytes that are not UTF-8, which the transport keeps as surrogates, become U+FFFD."""
    assert ResponseHead(200, {"X-Place": b"Z\xfcrich \xe2\x82\xac".decode("utf-8", "surrogateescape")})["x-place"] == (
        "Z\ufffdrich €"
    )


def test_secrets() -> None:
    """A secret is in no value, name, repr or pickle, though the server echoes the secret."""
    head = ResponseHead(401, {"X-Echo": f"Bearer {KEY}", KEY: "yes", "X-Team": "blue"}, Secret(KEY))
    assert dict(head) == {"x-echo": "Bearer …", "…": "yes", "x-team": "blue"}
    assert KEY not in repr(head)
    assert KEY.encode() not in pickle.dumps(head)
    team = head.redacted(Secret("blue"))
    assert (team["x-team"], team["x-echo"], team.status, head["x-team"]) == ("…", "Bearer …", 401, "blue")


@pytest.mark.parametrize("name", ["Set-Cookie", "Authorization", "X-Session-Id", "x-amz-security-token", "X-API-KEY"])
def test_secret_names(name: str) -> None:
    """The repr hides the value of a header whose name suggests a secret; the value can be read."""
    head = ResponseHead(200, {name: "value-1", "Date": "today"})
    assert repr(head) == f"ResponseHead(200, {{'{name.lower()}': '…', 'date': 'today'}})"
    assert head[name] == "value-1"


@pytest.mark.parametrize(
    "name", ["x-ratelimit-remaining-tokens", "Anthropic-RateLimit-Tokens-Limit", "X-Rate-Limit-Reset-Tokens", "Date"]
)
def test_rate_limits_are_no_secrets(name: str) -> None:
    """The repr shows rate limits, also those of tokens."""
    assert not is_secret_name(name)
    assert "'99'" in repr(ResponseHead(200, {name: "99"}))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))])
def test_copies(copied) -> None:  # type: ignore[no-untyped-def]
    """A copy, and a pickle from a transport whose own headers do not pickle, has the same content."""
    head = copied(ResponseHead(200, CIMultiDictProxy(CIMultiDict({"A": "1"})), Secret(KEY)))
    assert (dict(head), head.status, head["A"]) == ({"a": "1"}, 200, "1")


def test_no_head() -> None:
    """Where no answer came, there are no headers and no status."""
    assert (dict(NO_HEAD), NO_HEAD.status) == ({}, None)
