"""The error tree: drawn as it is, plain data, and whole after a journey through pickle or copy."""

import copy
import copyreg
import inspect
import pickle
import re

import pytest

import ctxcache
from ctxcache import errors
from ctxcache.errors import BadRequestError, CtxCacheError, InvalidInputError
from ctxcache.models import AssistantMessage, ChatCompletion, Choice

KINDS = [getattr(errors, name) for name in errors.__all__]
DETAILS = {
    "cause": errors.APITimeoutError("slow", limit="head", seconds=0.5, sent=True),
    "partial": ChatCompletion(id="c", choices=(Choice(message=AssistantMessage(content="Hi")),), request_id="r"),
    "request_id": "req-7",
    "log_id": "l",
    "client_request_id": "c",
    "attempts": 2,
    "status": 429,
    "code": "X.y",
    "type": "t",
    "param": "p",
    "context_id": "ctx-1",
    "body": {"error": {"message": "no", "more": [1, None, {"a": "b"}]}},
    "retry_after": 1.5,
    "headers": {"x-ratelimit-remaining-requests": "0"},
    "sent": True,
    "hopeless": True,
    "local": True,
    "limit": "idle",
    "seconds": 2.5,
    "field": "ttl",
    "value": "7",
    "allowed": "more",
}


def attributes(kind):
    """The documented data of a class."""
    return {name for base in kind.__mro__ for name in inspect.get_annotations(base)} - {"message"}


def seen(error):
    """All data of an error, without its chain's identity."""
    data = {name: getattr(error, name) for name in attributes(type(error)) - {"cause"}}
    return type(error), str(error), error.args, data, error.cause and seen(error.cause)


@pytest.mark.parametrize("travel", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS)
def test_travel(kind, travel):
    """Every error pickles and copies with all its data."""
    error = kind("it broke", **{name: DETAILS[name] for name in attributes(kind)})
    found = travel(error)
    assert found is not error
    assert seen(found) == seen(error)
    assert str(found) == "it broke (request id req-7)"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bare(protocol):
    """An error without details travels as well, by every protocol."""
    found = pickle.loads(pickle.dumps(errors.MalformedStreamError("it broke"), protocol))
    assert (found.message, found.args, str(found)) == ("it broke", ("it broke",), "it broke")
    assert (found.partial, found.cause, found.request_id, found.attempts, found.body) == (None, None, None, 0, "")


def test_the_drawn_tree():
    """The tree in the docstring is the real one: every class, under each of its bases."""
    drawn, path = set(), []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if not found or (not found[1].strip() and found[2] != "CtxCacheError"):
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        if depth:
            drawn.add((found[2], path[depth - 1]))
        if found[3]:
            drawn.add((found[2], found[3]))
    real = {(kind.__name__, base.__name__) for kind in KINDS for base in kind.__bases__} - {
        ("CtxCacheError", "Exception")
    }
    assert drawn == real


def test_time_limits_are_built_in_timeouts():
    """A time limit is caught as `TimeoutError`, too, and where the reply was lost as an unknown outcome."""
    assert issubclass(errors.APITimeoutError, TimeoutError)
    for kind in (errors.APITimeoutError, errors.OutcomeUnknownError, errors.APIConnectionError, TimeoutError):
        assert issubclass(errors.ReplyTimeoutError, kind)
    assert not issubclass(errors.ReplyLostError, TimeoutError)


def test_all_are_public():
    """Every error is exported by the package, and is one of the family."""
    for kind in KINDS:
        assert getattr(ctxcache, kind.__name__) is kind
        assert issubclass(kind, CtxCacheError)
        assert kind.__doc__


def test_every_class_is_listed():
    """No error class of the module is left out of the list."""

    def below(kind):
        return {kind}.union(*[below(child) for child in kind.__subclasses__()])

    assert {kind for kind in below(CtxCacheError) if kind.__module__ == errors.__name__} == set(KINDS)


def test_what_is_safe_to_repeat():
    """Outcome-unknown errors are just those the docstring says."""
    unknown = {kind.__name__ for kind in KINDS if issubclass(kind, errors.OutcomeUnknownError)}
    assert unknown == {
        "EventTooLargeError",
        "InternalServerError",
        "MalformedStreamError",
        "OutcomeUnknownError",
        "ProtocolError",
        "ReplyLostError",
        "ReplyTimeoutError",
    }


def test_invalid_input():
    """A bad argument's error names field, value and what is allowed, and is a `ValueError`."""
    error = InvalidInputError.of("ttl", 7, "a whole number in [3600, 604800]")
    assert isinstance(error, ValueError)
    assert str(error) == "ttl must be a whole number in [3600, 604800], got 7"
    assert (error.field, error.value, error.allowed) == ("ttl", "7", "a whole number in [3600, 604800]")
    assert len(InvalidInputError.of("x", "y" * 1000, "less").value) == 78
    assert pickle.loads(pickle.dumps(InvalidInputError.of("x", lambda: None, "data"))).value.startswith("<function")


def test_invalid_input_within():
    """An error about a part names its place in the whole, in the message as well."""
    error = InvalidInputError.of("role", 7, "a string").within("messages[2]")
    assert str(error) == "messages[2].role must be a string, got 7"
    assert (error.field, error.value, error.allowed) == ("messages[2].role", "7", "a string")


def test_timeout():
    """A time-out's error names its limit and value."""
    error = errors.APITimeoutError.of("head", 0.25, sent=True)
    assert (error.limit, error.seconds, error.sent, error.hopeless) == ("head", 0.25, True, False)
    assert "after 0.25 s (Timeouts.head)" in str(error)


@pytest.mark.parametrize("limit", ["connect", "pool", "head", "idle", "total"])
def test_which_timeouts_are_hopeless(limit):
    """Another attempt cannot help where the caller's own patience is over."""
    assert errors.APITimeoutError.of(limit, 1).hopeless is (limit in ("pool", "total"))


def test_request_id_is_said_once():
    """The text of an error names the request once, though the service's own message does so already."""
    assert str(errors.APIStatusError("it broke. Request id: x-9", request_id="x-9")) == "it broke. Request id: x-9"
    assert str(errors.APIStatusError("it broke", request_id="x-9")) == "it broke (request id x-9)"


def test_values_that_cannot_be_shown():
    """A value whose repr fails is named by its type: the error about it is raised all the same."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    error = InvalidInputError.of("field", deep, "less")
    assert error.message == "field must be less, got a list"
    while deep:  # taken apart by hand: freeing it at once would recurse as well
        deep = deep.pop()  # type: ignore[assignment]


def test_a_copy_has_no_traceback(monkeypatch):
    """A copy leaves the traceback behind, whose frames may hold content; even where a library keeps that in pickles."""
    monkeypatch.setitem(copyreg.dispatch_table, BadRequestError, lambda error: (lambda: error, ()))
    with pytest.raises(BadRequestError) as caught:
        raise BadRequestError("no", status=400)
    copied = copy.copy(caught.value)
    assert (str(copied), copied.status, copied.__traceback__) == ("no", 400, None)
