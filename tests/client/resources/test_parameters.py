"""The parameters of a chat: the same everywhere, with the same words."""

import inspect
import re
from typing import get_args, get_overloads

import pytest

from ctxcache import (
    AsyncSession,
    ChatOptions,
    ChatParameters,
    Conversation,
    Hooks,
    Limits,
    MemoryStore,
    Prefix,
    RedisStore,
    Retry,
    SQLiteStore,
    Timeouts,
)
from ctxcache.cli.docs import page
from ctxcache.client.resources.chat import ChatEndpoint
from ctxcache.client.resources.context import ContextEndpoint
from ctxcache.gateway import Gateway

CALLS = [ChatEndpoint.create, ChatEndpoint.stream, Prefix.ask, Prefix.stream, Prefix.map, Conversation.ask]
MANAGED = {"n", "repeatable", "serialize", "retry"}  # a managed context has other defaults


def described(function: object, section: str = "Args") -> dict[str, str]:
    """What a docstring says of each parameter."""
    text = re.search(rf"{section}:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    assert text
    rows = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text[1], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning) for name, meaning in rows}


def parameters(function: object) -> dict[str, inspect.Parameter]:
    """The parameters that a function really has."""
    assert callable(function)
    return {name: found for name, found in inspect.signature(function).parameters.items() if name != "self"}


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__qualname__)
def test_every_call_takes_the_same_parameters(function):
    """Names, types, order and defaults are those of `ChatParameters`, in the signature that `help()` shows."""
    shown = parameters(function)
    own = {name: get_args(kind)[0] for name, kind in ChatParameters.__annotations__.items()}
    assert [name for name in shown if name in own] == list(own)
    for name, kind in own.items():
        assert (shown[name].annotation, shown[name].default) == (kind, None), name
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert not [name for name, found in shown.items() if found.kind is inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize("function", [*CALLS, ContextEndpoint.create], ids=lambda function: function.__qualname__)
def test_every_parameter_is_described(function):
    """`help()`, an editor's hover and the TypedDict say the same of a parameter, and leave none out."""
    said, known = described(function), described(ChatParameters, "Attributes") | described(ChatOptions, "Attributes")
    assert list(said) == list(parameters(function))
    if function is not ContextEndpoint.create:
        alike = known if function in CALLS[:2] else known.keys() - MANAGED
        assert {name: said[name] for name in alike if name in said} == {n: known[n] for n in alike if n in said}
    assert inspect.getdoc(function).splitlines()[0].endswith(".")


def test_type_checkers_and_help_see_the_same():
    """The overload of a plain answer has the parameters of the function itself."""
    plain, *others = get_overloads(ChatEndpoint.create)
    shown = parameters(ChatEndpoint.create)
    of_plain = parameters(plain)
    assert list(of_plain) == list(shown)
    assert all(of_plain[name].annotation == shown[name].annotation for name in shown if name != "stream")
    assert len(others) == 2
    assert inspect.iscoroutinefunction(ChatEndpoint.create)
    assert inspect.iscoroutinefunction(Prefix.ask)
    assert not inspect.iscoroutinefunction(Prefix.stream)


@pytest.mark.parametrize("kind", [AsyncSession, Prefix, Conversation, Gateway, SQLiteStore, RedisStore, MemoryStore])
def test_constructors_show_and_describe_the_same(kind):
    """`help()` of a class shows the parameters that the docstring describes, and none that only tests use."""
    assert list(inspect.signature(kind).parameters) == list(described(kind))


def test_the_page_says_what_the_docstrings_say():
    """`ctxcache docs parameters` has every parameter and setting, in the words of the docstrings."""
    sections = page("parameters").split("\n## ")[1:]
    rows = {
        section.partition("\n")[0]: re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
        for section in sections
    }
    options = described(AsyncSession.with_options)
    chat = {**described(ChatOptions, "Attributes"), **described(ChatParameters, "Attributes")}
    assert rows["A session"] == [*described(AsyncSession).items(), *options.items()]
    assert rows["Creating a context"] == [*described(ContextEndpoint.create).items()]
    assert rows["A chat"] == [*chat.items()]
    for kind in (Timeouts, Retry, Limits, Hooks):
        assert rows[kind.__name__] == [*described(kind, "Attributes").items()]
        assert set(described(kind, "Attributes")) == set(inspect.signature(kind).parameters)
