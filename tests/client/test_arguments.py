"""Bad arguments of calls: each is an error that names the field, and nothing is sent."""

import inspect

import pytest

from ctxcache import (
    AsyncSession,
    InvalidInputError,
    Message,
    TruncationStrategy,
    system,
    user,
)

from ..hostile import CHAT, CREATE, answer

HELLO = [user("Hello")]


class Odd:
    """Something that no argument can be."""

    def __repr__(self):
        return "Odd()"


ODD = [None, 7, b"x", {}, Odd()]
BAD_CREATE = [
    *[("model", bad) for bad in ("", *ODD)],
    *[("messages", bad) for bad in ([], "Hello", b"x", {}, None, 7, user("x"), {"role": "user", "content": "x"})],
    ("messages[0]", ["Hello"]),
    ("messages[1]", [user("x"), None]),
    ("messages[0].role", [{"content": "x"}]),
    ("messages[0].role", [{"role": "", "content": "x"}]),
    ("messages[0].role", [{"role": None, "content": "x"}]),
    ("messages[1].content", [system("x"), {"role": "user"}]),
    ("messages[0].content", [{"role": "user", "content": None}]),
    ("messages[0].content", [{"role": "user", "content": ["text"]}]),
    ("messages[-1].role", [user("x"), Message("assistant", "y")]),
    *[("mode", bad) for bad in ("", "Session", "prefix", 7, ["session"])],
    *[("ttl", bad) for bad in (3599, 604801, 0, -1, 3600.5, "3600", True, float("nan"), float("inf"))],
    *[("truncation_strategy", bad) for bad in (7, "rolling_tokens", [])],
    ("truncation_strategy.type", {}),
    ("truncation_strategy.type", {"type": "newest"}),
    ("truncation_strategy.type", TruncationStrategy(type="newest")),
    ("truncation_strategy.last_history_tokens", {"type": "last_history_tokens", "last_history_tokens": 0}),
    ("truncation_strategy.last_history_tokens", {"type": "last_history_tokens", "last_history_tokens": "9"}),
    ("truncation_strategy.rolling_tokens", {"type": "rolling_tokens", "rolling_tokens": 1}),
    ("truncation_strategy: key", {"type": "rolling_tokens", "rolling": True}),
    ("extra_headers", {"a b": "c"}),
    *[("extra_headers['X-A']", {"X-A": bad}) for bad in ("a\ud800", "\udcff", "a\0", "a\nb", 7)],
    *[("timeouts", bad) for bad in ("5", [], True)],
    *[("retry", bad) for bad in (-1, 1.5, "1", True)],
]
BAD_CHAT = [
    *[("context_id", bad) for bad in ("", *ODD)],
    *[("model", bad) for bad in ("", *ODD)],
    ("messages", []),
    ("messages[0].role", [{"role": 7, "content": "x"}]),
    *[("tools", bad) for bad in ([], "f", {"type": "function"}, 7)],
    ("tools[1]", [{"type": "function"}, "f"]),
    ("tools[0]['function']", [{"function": Odd()}]),
    *[("tool_choice", bad) for bad in ("", 7, [])],
    *[("parallel_tool_calls", bad) for bad in (1, "yes")],
    *[("response_format", bad) for bad in ("json", 7)],
    *[("repetition_penalty", bad) for bad in (-1, "1")],
    *[("service_tier", bad) for bad in ("", 7)],
    *[("thinking", bad) for bad in (True, "enabled")],
    *[("temperature", bad) for bad in (-0.01, 2.01, "1", True, float("nan"))],
    *[("top_p", bad) for bad in (-0.01, 1.01, "1")],
    *[("n", bad) for bad in (0, -1, 1.5, True, "2")],
    *[("stop", bad) for bad in ("", [], ["a"] * 5, [""], [7], 7, b"x", {"a": 1})],
    *[("max_tokens", bad) for bad in (0, -1, 1.5, "9")],
    *[("presence_penalty", bad) for bad in (-2.01, 2.01, "0")],
    *[("frequency_penalty", bad) for bad in (-2.01, 2.01, "0")],
    *[("stream_options", bad) for bad in (7, "x", [], {7: 1})],
    *[("user", bad) for bad in ("", 7)],
    *[("logprobs", bad) for bad in (1, "true")],
    *[("top_logprobs", bad) for bad in (-1, 21, 1.5)],
    *[("logit_bias", bad) for bad in (7, [], {7: 1})],
    ("logit_bias['5']", {"5": 101}),
    ("logit_bias['5']", {"5": "1"}),
    *[("repeatable", bad) for bad in ("yes", 1)],
    *[("serialize", bad) for bad in ("yes", 1)],
    ("extra_headers", {"a b": "c"}),
    *[("extra_headers['X-A']", {"X-A": bad}) for bad in ("a\ud800", "\udcff", "a\0", "a\nb", 7)],
    *[("extra_body", bad) for bad in (7, [], "{}")],
    *[("extra_body['stream']", {"stream": given}) for given in (True, False, None)],
    ("extra_body['context_id']", {"context_id": "ctx-2"}),
    *[("timeouts", bad) for bad in ("5", [], True)],
    *[("retry", bad) for bad in (-1, 1.5, "1", True)],
    ("stream", "yes"),
]


def root(field):
    """The argument that a field is in."""
    return field.partition("[")[0].partition(".")[0].partition(":")[0]


@pytest.mark.parametrize(("field", "value"), BAD_CREATE, ids=repr)
async def test_bad_create(hostile, session, field, value):
    """Each bad argument of a create is a `ValueError` that names the field, and nothing is sent."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at below
        await session.context.create(**{**CREATE, root(field): value})
    named(caught.value, field)
    assert hostile.connections == []


@pytest.mark.parametrize(("field", "value"), BAD_CHAT, ids=repr)
async def test_bad_chat(hostile, session, field, value):
    """Each bad argument of a chat is a `ValueError` that names the field, and nothing is sent; of a stream as well."""
    arguments = {**CHAT, root(field): value}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at below
        await session.chat.create(**arguments)
    named(caught.value, field)
    if field != "stream":
        with pytest.raises(InvalidInputError) as caught:
            await session.chat.stream(**arguments).open()
        named(caught.value, field)
    assert hostile.connections == []


def named(error, field):
    """The error names the field, the value and what is allowed."""
    assert isinstance(error, InvalidInputError)
    assert root(error.field) == root(field) or root(error.field).removeprefix("extra_") == root(field).removeprefix(
        "extra_"
    )
    if "[" in field or "." in field:
        assert error.field.startswith(field)
    assert error.allowed
    assert str(error).startswith(error.field.partition("[")[0])


async def test_unencodable(hostile, session):
    """What JSON has no form for is a `ValueError` as well."""
    recursive = []
    recursive.append(recursive)
    for value in (Odd(), float("nan"), recursive, {1: 2, "x": Odd()}, "\ud800"):
        with pytest.raises(InvalidInputError):
            await session.chat.create(**CHAT, extra_body={"x": value})
        with pytest.raises(InvalidInputError):
            await session.chat.create(**CHAT, stream_options={"x": [value]})
    assert hostile.connections == []


async def test_unknown_and_missing_arguments(session):
    """Arguments that do not exist, or are missing, are a `TypeError`, as in any Python function."""
    with pytest.raises(TypeError):
        await session.chat.create(**CHAT, temprature=1)
    with pytest.raises((TypeError, ValueError), match="model"):
        await session.chat.create(context_id="c", messages=HELLO)
    with pytest.raises(TypeError, match="model"):
        await session.context.create(messages=HELLO)


async def test_long_values_are_shortened(session):
    """The message of an error shows no more than the beginning of a long value."""
    with pytest.raises(InvalidInputError) as caught:
        await session.chat.create(**CHAT, temperature="x" * 10_000)
    assert len(str(caught.value)) < 300


async def test_none_means_not_given(hostile, key):
    """Every optional parameter of both endpoints, and every setting, may be None: then nothing of that name is sent."""
    hostile.plays([answer({"id": "ctx-1"})], [answer()])
    optional = inspect.signature(AsyncSession).parameters.keys() - {"api_key", "base_url", "allow_insecure"}
    async with AsyncSession(key, hostile.url, **dict.fromkeys(optional)) as session:
        for call, required in ((session.context.create, CREATE), (session.chat.create, CHAT)):
            await call(**{**dict.fromkeys(inspect.signature(call).parameters), **required})
    assert [set(post.json) for post in hostile.posts] == [
        {"model", "messages"},
        {"model", "messages", "context_id", "stream"},
    ]
