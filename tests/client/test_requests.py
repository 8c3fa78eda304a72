"""The shape of every request: URL, method, headers and JSON of both endpoints, parameter by parameter."""

import json
from datetime import timedelta
from inspect import signature
from typing import Any

import attrs
import pytest
from aioresponses import aioresponses
from yarl import URL

from ctxcache import UNSET, AsyncSession, ProtocolError, TruncationStrategy, __version__, assistant, system, user
from ctxcache.client.resources import ContextEndpoint
from ctxcache.client.resources.parameters import ChatParameters

from ..hostile import CHAT, COMPLETION, CONTEXT, CREATE

BASE = "https://gateway.example/v1"
MESSAGES = [system("Be brief."), {"role": "user", "content": "Hello", "name": "me"}, assistant("Hi")]
SENT_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello", "name": "me"},
    {"role": "assistant", "content": "Hi"},
]


@pytest.fixture
async def sent(key):
    """Make calls on a mocked transport: returns URL, method, headers and JSON of the one request."""
    with aioresponses() as mocked:
        mocked.post(f"{BASE}/context/create", payload=CONTEXT, repeat=True)
        mocked.post(f"{BASE}/context/chat/completions", payload=COMPLETION, repeat=True)
        async with AsyncSession(key, BASE, headers={"X-Team": "blue"}) as session:

            async def send(call):
                mocked.requests.clear()
                await call(session)
                ((method, url), (request,)) = next(iter(mocked.requests.items()))
                assert len(mocked.requests) == 1
                body = request.kwargs["data"]
                headers = dict(request.kwargs["headers"])
                return method, url, headers, json.loads(body.decode())

            yield send


async def test_create(sent, key):
    """A create is a POST of exactly what was given, with the documented headers."""
    method, url, headers, body = await sent(lambda session: session.context.create(**CREATE))
    assert (method, url) == ("POST", URL(f"{BASE}/context/create"))
    assert body == {"model": "m", "messages": CREATE["messages"], "mode": "session"}
    assert headers.pop("X-Client-Request-Id")
    assert headers.pop("User-Agent").startswith(f"ctxcache/{__version__} ")
    assert headers == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "X-Team": "blue",
    }


async def test_chat(sent, key):
    """A chat is a POST of exactly what was given, with the documented headers."""
    method, url, headers, body = await sent(lambda session: session.chat.create(**CHAT))
    assert (method, url) == ("POST", URL(f"{BASE}/context/chat/completions"))
    assert body == {**CHAT, "stream": False}
    assert headers["Authorization"] == f"Bearer {key}"
    assert (headers["Content-Type"], headers["Accept"]) == ("application/json", "application/json")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CREATE_OPTIONAL = [
    name
    for name, found in signature(ContextEndpoint.create).parameters.items()
    if found.default is not found.empty and name != "mode"
]
OPTIONAL = [name for name in ChatParameters.__optional_keys__ if name not in ("repeatable", "serialize")]


@attrs.define
class AttrsTool:
    """A tool as an object of somebody's own."""

    type: str
    function: dict[str, Any]
    strict: bool | None = None


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"mode": "common_prefix"}, {"mode": "common_prefix"}),
        ({"ttl": 3600}, {"ttl": 3600}),
        ({"ttl": 604800}, {"ttl": 604800}),
        ({"ttl": 7200.0}, {"ttl": 7200}),
        ({"ttl": timedelta(days=1)}, {"ttl": 86400}),
        ({"ttl": UNSET}, {}),
        *[(dict.fromkeys(CREATE_OPTIONAL, none), {}) for none in (None, UNSET)],
        ({"ttl": None, "truncation_strategy": None, "extra_body": None, "extra_headers": None}, {}),
        (
            {"truncation_strategy": {"type": "last_history_tokens", "last_history_tokens": 4096}},
            {"truncation_strategy": {"type": "last_history_tokens", "last_history_tokens": 4096}},
        ),
        (
            {"truncation_strategy": TruncationStrategy(type="rolling_tokens", rolling_tokens=False)},
            {"truncation_strategy": {"type": "rolling_tokens", "rolling_tokens": False}},
        ),
        (
            {
                "truncation_strategy": {
                    "type": "rolling_tokens",
                    "rolling_tokens": True,
                    "max_window_tokens": 9,
                    "rolling_window_tokens": 3,
                }
            },
            {
                "truncation_strategy": {
                    "type": "rolling_tokens",
                    "rolling_tokens": True,
                    "max_window_tokens": 9,
                    "rolling_window_tokens": 3,
                }
            },
        ),
        ({"extra_body": {"new": {"a": [1, None]}, "ttl": "1h"}}, {"new": {"a": [1, None]}, "ttl": "1h"}),
    ],
    ids=str,
)
async def test_create_parameters(sent, given, body):
    """Each parameter of a create is sent under its name, and nothing beside it."""
    _, _, _, found = await sent(lambda session: session.context.create(**CREATE, **given))
    assert found == {"model": "m", "messages": CREATE["messages"], "mode": "session", **body}


@pytest.mark.parametrize(
    ("given", "body"),
    [
        *[
            ({name: value}, {name: value})
            for name in ("presence_penalty", "frequency_penalty")
            for value in (-2, 0, 1.5, 2)
        ],
        *[({"temperature": value}, {"temperature": value}) for value in (0, 0.7, 2)],
        *[({"top_p": value}, {"top_p": value}) for value in (0, 0.5, 1)],
        ({"n": 3}, {"n": 3}),
        ({"stop": "END"}, {"stop": "END"}),
        ({"stop": ["a", "b", "c", "d"]}, {"stop": ["a", "b", "c", "d"]}),
        ({"stop": ("a", "b")}, {"stop": ["a", "b"]}),
        ({"max_tokens": 1}, {"max_tokens": 1}),
        ({"stream_options": {"include_usage": True}}, {"stream_options": {"include_usage": True}}),
        ({"user": "u-1"}, {"user": "u-1"}),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 20}),
        ({"logprobs": False}, {"logprobs": False}),
        ({"logit_bias": {"50256": -100}}, {"logit_bias": {"50256": -100}}),
        ({"extra_body": {"service_tier": "x", "temperature": 9}}, {"service_tier": "x", "temperature": 9}),
        ({"extra_body": {"user": None}}, {"user": None}),
        *[({name: [TOOL]}, {name: [TOOL]}) for name in ("tools",)],
        ({"tools": (AttrsTool("function", TOOL["function"]),)}, {"tools": [TOOL]}),
        *[({"tool_choice": choice}, {"tool_choice": choice}) for choice in ("auto", {"type": "function"})],
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        (dict.fromkeys(OPTIONAL, UNSET), {}),
        (dict.fromkeys(OPTIONAL), {}),
        ({"repeatable": True, "serialize": True, "timeouts": None, "stream": False}, {}),
    ],
    ids=str,
)
async def test_chat_parameters(sent, given, body):
    """Each parameter of a chat is sent under its name, and nothing beside it."""
    _, _, _, found = await sent(lambda session: session.chat.create(**CHAT, **given))
    assert found == {**CHAT, "stream": False, **body}


async def test_messages(sent):
    """`Message` objects and mappings may be mixed, in any iterable; further keys of a mapping travel along."""
    _, _, _, body = await sent(lambda session: session.chat.create(**{**CHAT, "messages": iter(MESSAGES)}))
    assert body["messages"] == SENT_MESSAGES


async def test_stream(sent):
    """A stream asks for events, and says so in its body."""

    async def call(session):
        with pytest.raises(ProtocolError, match="text/event-stream"):  # the mock answers JSON
            await session.chat.stream(**CHAT, stream_options={"include_usage": True}).open()

    _, url, headers, body = await sent(call)
    assert url == URL(f"{BASE}/context/chat/completions")
    assert headers["Accept"] == "application/json"
    assert body == {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"x-trace": "1"}, {"X-Trace": "1"}),
        ({"x-team": "red"}, {"X-Team": "red"}),
        ({"accept-encoding": "gzip"}, {"Accept-Encoding": "gzip"}),
        ({"USER-AGENT": "mine"}, {"User-Agent": "mine"}),
        ({"X-Client-Request-Id": "mine"}, {"X-Client-Request-Id": "mine"}),
    ],
)
async def test_extra_headers(sent, extra, expected):
    """The headers of a call win over the session's, whatever their case, and none is sent twice."""
    _, _, headers, _ = await sent(lambda session: session.chat.create(**CHAT, extra_headers=extra))
    assert expected.items() <= headers.items()
    assert len({name.lower() for name in headers}) == len(headers)


async def test_unicode(sent):
    """Text travels as it is."""
    text = '缓存 🙂 \u2028 \x00 "quoted" \\'
    _, _, _, body = await sent(lambda session: session.chat.create(**{**CHAT, "messages": [user(text)]}))
    assert body["messages"] == [{"role": "user", "content": text}]
