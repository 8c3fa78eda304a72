"""Proxies of the environment."""

import socket
from types import SimpleNamespace

import pytest

from ctxcache import (
    APIConnectionError,
    InvalidInputError,
)

from ...hostile import (
    CHAT,
    CLOSE,
    STORY_TEXT,
    Hostile,
    answer,
    streamed,
)
from ..calling import everything, failure, read


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_proxy(hostile, session_for, monkeypatch, name, scheme):
    """The proxy of the environment gets the requests, for a host that only it knows."""
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{hostile.port}")
    hostile.plays([answer()], [streamed()])
    session = session_for(SimpleNamespace(url="http://api.invalid/v1"))
    assert (await session.chat.create(**CHAT)).text == "Hi"
    assert await read(session.chat.stream(**CHAT)) == STORY_TEXT
    assert {post.target for post in hostile.posts} == {"http://api.invalid/v1/context/chat/completions"}
    assert hostile.posts[0].headers["host"] == "api.invalid"


async def test_proxy_credentials(hostile, session_for, monkeypatch):
    """The user of a proxy URL is sent to the proxy."""
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{hostile.port}")
    hostile.plays([answer()])
    await session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT)
    assert hostile.posts[0].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.com,127.0.0.1", "*", "127.0.0.1:{port}"])
async def test_no_proxy(hostile, session_for, monkeypatch, no_proxy):
    """`NO_PROXY` names hosts that are asked directly."""
    async with Hostile() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=hostile.port))
        hostile.plays([answer()])
        await session_for().chat.create(**CHAT)
        assert (len(proxy.connections), hostile.posts[0].target) == (0, "/v1/context/chat/completions")


async def test_no_proxy_for_others(hostile, session_for, monkeypatch):
    """`NO_PROXY` for one host leaves the proxy for the others."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    monkeypatch.setenv("NO_PROXY", "example.com")
    hostile.plays([answer()])
    await session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT)


async def test_https_proxy(hostile, session_for, monkeypatch):
    """An https URL is tunnelled: the proxy is asked to connect, gets no key, and its refusal is a failed connection."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{hostile.port}")
    hostile.plays(*[[answer(b"", status="407 Who are you?"), CLOSE]] * 3)
    error = await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert [(r.method, r.target) for r in hostile.posts] == [("CONNECT", "api.invalid:443")] * 3
    assert not any("authorization" in r.headers for r in hostile.posts)


async def test_http_proxy_is_not_for_https(hostile, session_for, monkeypatch):
    """`HTTP_PROXY` is for http URLs only."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert hostile.connections == []


async def test_proxy_that_is_down(hostile, session_for, monkeypatch):
    """A proxy that is not there is a failed connection, without its credentials in the text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}")
        error = await failure(session_for().chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert "secret" not in everything(error)
    assert hostile.connections == []


async def test_unusable_proxy(session_for, monkeypatch):
    """A proxy of a kind aiohttp does not speak is named before anything is sent, without its credentials."""
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:1")
    error = await failure(session_for().chat.create(**CHAT))
    assert isinstance(error, InvalidInputError)
    assert error.field == "proxy"
    assert "secret" not in f"{error!r} {vars(error)}"
