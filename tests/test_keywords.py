"""Keyword arguments that a function does not have: the error names the nearest that it has."""

import pytest

from ctxcache import (
    AsyncSession,
    Conversation,
    Hooks,
    Limits,
    MemoryStore,
    Prefix,
    Prices,
    RedisStore,
    Retry,
    SQLiteStore,
    Timeouts,
    system,
)
from ctxcache.gateway import Gateway, ScriptedEngine
from ctxcache.keywords import suggest_keywords, unknown_keyword

from .hostile import CHAT


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
    for name in ("default_query", "extra_query"):  # nothing here adds a query to the URL
        assert unknown_keyword("f()", name, ["base_url", "extra_body", "default_headers"]).endswith(f"{name!r}")
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


CREATE = {"model": "m", "messages": [system("a")]}


@pytest.mark.parametrize(
    ("call", "given", "told"),
    [
        (Timeouts, {"read": 5}, "Timeouts() has no argument 'read': did you mean 'idle'?"),
        (Timeouts, {"conect": 5}, "Timeouts() has no argument 'conect': did you mean 'connect'?"),
        (Limits, {"max_connections": 5}, "Limits() has no argument 'max_connections': did you mean 'connections'?"),
        (Retry, {"max_retries": 5}, "Retry() has no argument 'max_retries': did you mean 'attempts'?"),
        (Hooks, {"on_cal": print}, "Hooks() has no argument 'on_cal': did you mean 'on_call'?"),
        (Prices, {"inputs": 1}, "Prices() has no argument 'inputs': did you mean 'input'?"),
        (Gateway, {"model": ["m"]}, "Gateway() has no argument 'model': did you mean 'models'?"),
        (ScriptedEngine, {"lenght": 5}, "ScriptedEngine() has no argument 'lenght': did you mean 'length'?"),
        (MemoryStore, {"clok": 5}, "MemoryStore() has no argument 'clok': did you mean 'clock'?"),
        (SQLiteStore, {"pth": "x"}, "SQLiteStore() has no argument 'pth': did you mean 'path'?"),
        (RedisStore, {"prefx": "x"}, "RedisStore() has no argument 'prefx': did you mean 'prefix'?"),
    ],
)
def test_settings_and_helpers(call, given, told):
    """So do the settings, the stores and the gateway, by the name the caller wrote."""
    with pytest.raises(TypeError) as caught:
        call(**given)
    assert str(caught.value) == told


async def test_managed_contexts(session):
    """So do `Prefix` and `Conversation`, and their calls, each under its own name; nothing is sent."""
    prefix, chat = Prefix(session, **CREATE), Conversation(session, **CREATE)
    for kind in (Prefix, Conversation):
        with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) has no argument 'prompt': did you mean 'messages'"):
            kind(session, model="m", prompt="a")
        with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) needs the keyword argument 'model'$"):
            kind(session, messages=[system("a")])
    with pytest.raises(TypeError, match=r"^Prefix\.ask\(\) has no argument 'max_output_tokens': .* 'max_tokens'\?$"):
        await prefix.ask("?", max_output_tokens=5)
    with pytest.raises(TypeError, match=r"^Conversation\.ask\(\) has no argument 'temprature'"):
        await chat.ask("?", temprature=1)
    with pytest.raises(TypeError, match=r"^Prefix\.stream\(\) has no argument 'timeout': did you mean 'timeouts'"):
        prefix.stream("?", timeout=1)
    with pytest.raises(TypeError, match=r"^Prefix\.map\(\) has no argument 'workers': did you mean 'concurrency'"):
        prefix.map(["?"], workers=1)
    with pytest.raises(TypeError, match=r"^Prefix\.check\(\) has no argument 'temprature': .* 'temperature'"):
        prefix.check(temprature=1)
    with pytest.raises(TypeError, match=r"^Conversation\.resync\(\) has no argument 'kep': did you mean 'keep'"):
        await chat.resync(kep=True)
    with pytest.raises(TypeError, match=r"^ManagedStream\.sse\(\) has no argument 'heartbeats': .* 'heartbeat'"):
        prefix.stream("?").sse(heartbeats=1)
    with pytest.raises(TypeError, match=r"^Conversation\.load\(\) has no argument 'is_gon'"):
        Conversation.load(session, "", is_gon=1)


async def test_the_calls_of_a_session(session):
    """The functions of a session are named as the caller writes them."""
    with pytest.raises(TypeError, match=r"^session\.chat\.create\(\) has no argument 'max_completion_tokens'"):
        await session.chat.create(**CHAT, max_completion_tokens=1)
    with pytest.raises(TypeError, match=r"^session\.context\.create\(\) has no argument 'expires_in': .* 'ttl'"):
        await session.context.create(**CREATE, expires_in=3600)
    with pytest.raises(TypeError, match=r"^session\.chat\.prepare\(\) has no argument 'temprature': .* 'temperature'"):
        session.chat.prepare(model="m", temprature=1)
    with pytest.raises(TypeError, match=r"^chat_defaults has no argument 'temprature': did you mean 'temperature'"):
        session.with_options(chat_defaults={"temprature": 1})
    with pytest.raises(TypeError, match=r"^AsyncSession\.with_options\(\) has no argument 'timeout': .* 'timeouts'"):
        session.with_options(timeout=5)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda session: Timeouts(5), "Timeouts() takes keyword arguments only, such as connect=…"),
        (
            lambda session: AsyncSession("k", "http://localhost", 5),
            "AsyncSession() takes keyword arguments after api_key, base_url, such as timeouts=…",
        ),
        (
            lambda session: session.chat.stream("ctx-1"),
            "session.chat.stream() takes keyword arguments only, such as context_id=…",
        ),
        (lambda session: Prefix(session, "m"), "Prefix() takes keyword arguments after session, such as model=…"),
        (lambda session: Gateway(8080), "Gateway() takes keyword arguments only, such as host=…"),
        (lambda session: Prices(1, 2, 3, 4, 5), "Prices() takes keyword arguments after input, cached, output, stor"),
    ],
)
def test_arguments_without_names(session, call, told):
    """Too many arguments without a name are answered with a keyword, not with a count."""
    with pytest.raises(TypeError) as caught:
        call(session)
    assert str(caught.value).startswith(told)


async def test_arguments_that_are_missing(session):
    """A missing argument that needs no name is named as the caller writes the call, whatever class defines it."""
    prefix, chat = Prefix(session, **CREATE), Conversation(session, **CREATE)
    with pytest.raises(TypeError, match=r"^Prefix\.ask\(\) needs the argument 'question'$"):
        await prefix.ask()
    with pytest.raises(TypeError, match=r"^Conversation\.stream\(\) needs the argument 'question'$"):
        chat.stream(temperature=1)
    with pytest.raises(TypeError, match=r"^Conversation\.load\(\) needs the argument 'text'$"):
        Conversation.load(session)
    assert function(None, first=2) == (2, None, None)
    assert prefix.stream(question="?") is not None


def test_what_a_managed_context_sets_itself(session):
    """An argument that is no slip but not the caller's to set is refused with the reason."""
    with pytest.raises(ValueError, match=r"^context_id must be left out \(the managed context sets it\)"):
        Prefix(session, **CREATE).stream("?", context_id="ctx-1")
