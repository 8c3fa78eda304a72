"""Proxies of the environment."""

import socket
from types import SimpleNamespace

import aiohttp
import pytest

from ctxcache import APIConnectionError, APITimeoutError, InvalidInputError, Timeouts

from ...hostile import (
    CHAT,
    CLOSE,
    STALL,
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


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
async def test_loopback_is_not_proxied(hostile, session_for, monkeypatch, name):
    """This machine is asked directly, whatever the environment says: neither key nor prompt goes to the proxy."""
    async with Hostile() as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        hostile.plays([answer()])
        await session_for().chat.create(**CHAT)
        assert (len(proxy.connections), hostile.posts[0].target) == (0, "/v1/context/chat/completions")


async def test_no_proxy(hostile, session_for, monkeypatch):
    """`NO_PROXY` names hosts that are asked directly, here one that nobody can find."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    monkeypatch.setenv("NO_PROXY", "other.example api.invalid:80")
    error = await failure(session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert hostile.connections == []


async def test_no_proxy_for_others(hostile, session_for, monkeypatch):
    """`NO_PROXY` for one host leaves the proxy for the others."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    monkeypatch.setenv("NO_PROXY", "example.com,10.0.0.0/8")
    hostile.plays([answer()])
    await session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT)
    assert len(hostile.posts) == 1


async def test_proxy_by_hand(hostile, session_for):
    """A proxy given by hand, on the caller's own `ClientSession`, gets the requests to this machine, too."""
    hostile.plays([answer()])
    async with aiohttp.ClientSession(proxy=f"http://127.0.0.1:{hostile.port}") as http:
        await session_for(SimpleNamespace(url="http://127.0.0.1:9/v1"), http=http).chat.create(**CHAT)
    assert hostile.posts[0].target == "http://127.0.0.1:9/v1/context/chat/completions"


@pytest.mark.parametrize("proxy", ["http://me:secret@proxy.example.com:1", "me:secret@8.8.8.8:1"])
async def test_public_proxy(session_for, monkeypatch, proxy):
    """The key of an http URL does not go through a public host's proxy over plain http."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = await failure(session_for(SimpleNamespace(url="http://gateway/v1")).chat.create(**CHAT))
    assert isinstance(error, InvalidInputError)
    assert error.field == "proxy"
    assert "secret" not in everything(error)


async def test_https_proxy(hostile, session_for, monkeypatch):
    """An https URL is tunnelled: the proxy is asked to connect, gets no key, and its refusal is a failed connection."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{hostile.port}")
    hostile.plays(*[[answer(b"", status="407 Who are you?"), CLOSE]] * 3)
    error = await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert [(r.method, r.target) for r in hostile.posts] == [("CONNECT", "api.invalid:443")] * 3
    assert not any("authorization" in r.headers for r in hostile.posts)
    assert str(error) == "cannot connect: the proxy 127.0.0.1 answered 407 Who are you?"


async def test_http_proxy_is_not_for_https(hostile, session_for, monkeypatch):
    """`HTTP_PROXY` is for http URLs only."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{hostile.port}")
    await failure(session_for(SimpleNamespace(url="https://api.invalid/v1")).chat.create(**CHAT))
    assert hostile.connections == []


async def test_proxy_that_is_down(hostile, session_for, monkeypatch):
    """A proxy that is not there is a failed connection, without its credentials in the text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
        error = await failure(session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT))
    assert type(error) is APIConnectionError
    assert not error.sent
    assert str(error) == f"cannot connect: the proxy 127.0.0.1:{port}: Connection refused"
    assert "secret" not in everything(error)
    assert hostile.connections == []


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://me:secret@127.0.0.1:1",
        "http://me:secret@[::1",
        "http://me:secret@p:99999",
        "me:secret@p:port",
        "http://",
    ],
)
async def test_unusable_proxy(session_for, monkeypatch, proxy):
    """A proxy of a kind aiohttp does not speak is named before anything is sent, without its credentials."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    error = await failure(session_for(SimpleNamespace(url="http://api.invalid/v1")).chat.create(**CHAT))
    assert isinstance(error, InvalidInputError)
    assert error.field == "proxy"
    assert "secret" not in everything(error)


@pytest.mark.parametrize("user", ["", "me:secret@"])
async def test_proxy_that_is_silent(hostile, session_for, monkeypatch, user):
    """A connection that takes too long names the proxy, without its credentials: the service may be well."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{user}127.0.0.1:{hostile.port}")
    hostile.plays([STALL])
    session = session_for(SimpleNamespace(url="https://api.invalid/v1"), timeouts=Timeouts(connect=0.05), retry=0)
    error = await failure(session.chat.create(**CHAT))
    assert isinstance(error, APITimeoutError)
    assert not error.sent
    assert str(error) == f"timed out after 0.05 s (Timeouts.connect), through the proxy 127.0.0.1:{hostile.port}"
    assert "secret" not in everything(error)
