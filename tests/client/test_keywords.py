"""Keyword arguments that a function does not have: the error names the nearest that it has."""

import pytest

from ctxcache import AsyncSession
from ctxcache.client.keywords import suggest_keywords, unknown_keyword

from ..hostile import CHAT


@suggest_keywords
def function(self, first, *, timeouts=None, retry=None):
    """A function to call wrongly."""
    return first, timeouts, retry


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("timeout", "timeouts"),
        ("max_retries", "retry"),
        ("timeuots", "timeouts"),
        ("retries", "retry"),
        ("frist", "first"),
    ],
)
def test_the_nearest_is_named(given, nearest):
    """A misspelt name, or another library's, is answered with the name that was meant."""
    with pytest.raises(TypeError, match=rf"^function\(\) has no argument '{given}': did you mean '{nearest}'\?$"):
        function(None, 1, **{given: 5})


def test_nothing_near():
    """A name that is near no other is named alone; right names are passed on."""
    assert unknown_keyword("f()", "zzz", ["a", "b"]) == "f() has no argument 'zzz'"
    assert function(None, 1, retry=3) == (1, None, 3)


@pytest.mark.parametrize("given", [{"timeout": 5}, {"max_retries": 2}, {"default_headers": {}}, {"api_kee": "x"}])
def test_a_session(given, key):
    """A session that was made with a wrong keyword says so, and nothing else."""
    with pytest.raises(TypeError, match=r"^AsyncSession\(\) has no argument .*: did you mean "):
        AsyncSession(**{"api_key": key, **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"temprature": 1}, "'temprature': did you mean 'temperature'"),
        ({"timeout": 1}, "'timeout': did you mean 'timeouts'"),
    ],
)
async def test_a_chat(session, given, told):
    """So does a chat, plain or streamed, before anything is sent; also one that lacks what is required."""
    with pytest.raises(TypeError, match=told):
        await session.chat.create(**CHAT, **given)
    with pytest.raises(TypeError, match=told):
        session.chat.stream(**CHAT, **given)
    with pytest.raises(TypeError, match="'contextid': did you mean 'context_id'"):
        session.chat.stream(**{**CHAT, "contextid": "c"} | {"model": "m"})
    without = {name: value for name, value in CHAT.items() if name != "messages"}
    with pytest.raises(TypeError, match="needs the keyword argument 'messages'"):
        session.chat.stream(**without)
