"""The requests: every range is checked, and an error names the field."""

import copy
import pickle
from datetime import timedelta

import pytest

from ctxcache import (
    UNSET,
    InvalidInputError,
    TruncationStrategy,
    Unset,
    assistant,
    user,
)
from ctxcache.models import (
    ChatRequest,
    ContextRequest,
)

HELLO = [user("Hello")]


def chat(**fields):
    """A chat request with what is required."""
    return ChatRequest(**{"context_id": "c", "model": "m", "messages": HELLO, **fields})


def context(**fields):
    """A context request with what is required."""
    return ContextRequest(**{"model": "m", "messages": HELLO, **fields})


@pytest.mark.parametrize(
    ("field", "low", "high", "step"),
    [
        ("temperature", 0, 2, 1e-9),
        ("top_p", 0, 1, 1e-9),
        ("presence_penalty", -2, 2, 1e-9),
        ("frequency_penalty", -2, 2, 1e-9),
        ("top_logprobs", 0, 20, 1),
    ],
)
def test_ranges(field, low, high, step):
    """The ends of each range are in it, what is beyond is not; the error says the range."""
    for value in (low, high, float(low), float(high)):
        assert getattr(chat(**{field: value}), field) == value
    for value in (low - step, high + step, float("nan"), float("inf"), -float("inf"), True, "1", [1]):
        with pytest.raises(InvalidInputError, match=rf"^{field} must be .*\[{low:g}, {high:g}\], got "):
            chat(**{field: value})


@pytest.mark.parametrize("field", ["n", "max_tokens"])
def test_counts(field):
    """Counts begin at 1; a whole number may be written as a float."""
    assert getattr(chat(**{field: 2.0}), field) == 2
    assert isinstance(getattr(chat(**{field: 2.0}), field), int)
    for value in (0, -1, 1.5, True, "1"):
        with pytest.raises(InvalidInputError, match=rf"^{field} must be a whole number from 1 up"):
            chat(**{field: value})


def test_ttl():
    """`ttl` is a whole number of seconds in its range, or a timedelta of that length."""
    for value in (3600, 604800, 3600.0, timedelta(hours=1), timedelta(days=7)):
        assert isinstance(context(ttl=value).ttl, int)
    assert context(ttl=timedelta(hours=2)).ttl == 7200
    for value in (3599, 604801, 3600.5, timedelta(hours=1, microseconds=1), timedelta(days=8), "3600", True):
        with pytest.raises(InvalidInputError, match=r"^ttl must be .*\[3600, 604800\]"):
            context(ttl=value)


def test_stop():
    """`stop` is one string or up to 4, in any order and any iterable."""
    assert chat(stop="x").stop == "x"
    assert chat(stop=["b", "a"]).stop == ("b", "a")
    assert chat(stop=iter("ab")).stop == ("a", "b")
    assert set(chat(stop={"a", "b"}).stop) == {"a", "b"}
    for value in ("", [], [""], list("abcde"), b"x", 7, [None]):
        with pytest.raises(InvalidInputError, match=r"^stop must be "):
            chat(stop=value)


def test_context_rules():
    """A context does not begin with an answer, and a prefix has no truncation strategy."""
    with pytest.raises(InvalidInputError, match=r"messages\[-1\]\.role"):
        context(messages=[user("x"), assistant("y")])
    assert context(messages=[assistant("y"), user("x")]).messages[0].role == "assistant"
    strategy = {"type": "rolling_tokens"}
    assert context(mode="session", truncation_strategy=strategy).truncation_strategy.type == "rolling_tokens"
    with pytest.raises(InvalidInputError, match="truncation_strategy"):
        context(mode="common_prefix", truncation_strategy=strategy)


def test_required():
    """Required fields cannot be left out, nor unset."""
    for name in ("model", "messages", "context_id"):
        with pytest.raises(InvalidInputError, match=name):
            chat(**{name: UNSET})
    with pytest.raises(TypeError):
        ChatRequest(model="m", messages=HELLO)


def test_extra():
    """Extra fields are copied; they need string keys."""
    extra = {"a": 1}
    request = chat(extra=extra)
    extra["b"] = 2
    assert request.extra == {"a": 1}
    for bad in ({1: 2}, [], 7, "x", None):
        with pytest.raises(InvalidInputError, match="extra"):
            chat(extra=bad)


def test_truncation_strategy_of_answers():
    """A strategy of an answer may be of a type nobody knows yet; one of a request may not."""
    assert TruncationStrategy(type="brand_new").type == "brand_new"
    with pytest.raises(InvalidInputError, match=r"truncation_strategy\.type"):
        context(truncation_strategy=TruncationStrategy(type="brand_new"))


def test_unset():
    """`UNSET` is false, one of its kind, and stays so through pickle and copy."""
    assert not UNSET
    assert repr(UNSET) == "UNSET"
    for found in (pickle.loads(pickle.dumps(UNSET)), copy.copy(UNSET), copy.deepcopy(UNSET), Unset("UNSET")):
        assert found is UNSET
