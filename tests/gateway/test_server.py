"""The Gateway object: settings, start and end."""

import asyncio
import itertools
import logging
import socket
from contextlib import ExitStack, suppress
from traceback import StackSummary, walk_tb
from typing import Any

import aiohttp
import pytest

from ctxcache import APIConnectionError, InvalidInputError, SessionError
from ctxcache.gateway import MODELS, WINDOW, Gateway
from ctxcache.models import system

from .conftest import Api, DictatedEngine
from .loops import NoReaders


async def test_it_listens_on_this_machine_on_a_free_port() -> None:
    """Two gateways at once have different ports and keys."""
    async with Gateway() as one, Gateway() as two:
        assert one.base_url == f"http://127.0.0.1:{one.port}/v1"
        assert one.port != two.port
        assert one.api_key != two.api_key
        assert one.api_key.startswith("sk-")
        assert len(one.api_key) == 51


async def test_the_key_does_not_show(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The key is in no repr, and not in the log of a right and a wrong call."""
    caplog.set_level(logging.DEBUG)
    api = await start(api_key="sk-not-to-be-shown")
    await api.chat((await api.create())["id"], stream=True)
    await api.post("/nowhere", {})
    assert api.gateway.api_key == "sk-not-to-be-shown"
    assert "not-to-be-shown" not in caplog.text + repr(api.gateway) + str(vars(api.gateway))
    assert "POST /v1/context/create 200" in caplog.text
    assert "Be kind" not in caplog.text


async def test_its_repr_says_where_it_is() -> None:
    """The repr shows the base URL, or that the gateway is not running."""
    gateway = Gateway(port=1)
    assert repr(gateway) == "Gateway(not running)"
    async with Gateway() as gateway:
        assert repr(gateway) == f"Gateway('{gateway.base_url}')"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("", "http://127.0.0.1:8000/v1"),
        ("::", "http://[::1]:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("example.com", "http://example.com:8000/v1"),
    ],
)
def test_the_base_url_can_be_called(host: str, url: str) -> None:
    """The base URL has loopback in place of a wildcard, and brackets around an IPv6 address."""
    assert Gateway(host=host, port=8000).base_url == url


async def test_a_wildcard_is_reached_by_its_base_url(start: Any) -> None:
    """A gateway on a wildcard answers at the base URL."""
    api = await start(host="")
    assert (await api.create())["mode"] == "session"


def test_no_url_before_there_is_a_port() -> None:
    """A gateway on a free port has no base URL before it is started."""
    with pytest.raises(SessionError, match="before it is started"):
        _ = Gateway().base_url


async def test_a_port_in_use_is_an_error_of_ours() -> None:
    """A port in use is an `APIConnectionError` with host and port, with no OSError behind."""
    async with Gateway() as one:
        two = Gateway(port=one.port)
        with pytest.raises(APIConnectionError, match=f"cannot listen on 127.0.0.1 port {one.port}: ") as refused:
            await two.start()
        assert refused.value.__context__ is None
        assert repr(two) == "Gateway(not running)"
    async with two:
        assert two.base_url == one.base_url


@pytest.mark.parametrize("host", ["203.0.113.1", "x" * 300, "a\0b"])
async def test_an_address_of_another_machine_is_an_error_of_ours(host: str) -> None:
    """So is every other reason that prevents listening."""
    with pytest.raises(APIConnectionError, match=f"cannot listen on {host}"):
        await Gateway(host=host).start()


async def test_it_can_be_started_once() -> None:
    """A second start is an error and leaves the gateway running."""
    async with Gateway() as gateway:
        with pytest.raises(SessionError, match="running already"):
            await gateway.start()
        assert repr(gateway) != "Gateway(not running)"


async def test_of_two_starts_at_once_one_is_an_error() -> None:
    """The gateway listens once, and leaves no socket open."""
    gateway = Gateway()
    outcomes = await asyncio.gather(gateway.start(), gateway.start(), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "SessionError"]
    await gateway.aclose()


async def test_it_can_be_closed_any_number_of_times() -> None:
    """A gateway may be closed before the start, twice, and by two tasks at once."""
    gateway = Gateway()
    await gateway.aclose()
    await gateway.start()
    await asyncio.gather(gateway.aclose(), gateway.aclose())
    await gateway.aclose()


async def test_after_a_restart_it_is_the_same(start: Any) -> None:
    """A restarted gateway has the same port, key and contexts."""
    api = await start()
    created, url = await api.create(), api.gateway.base_url
    await api.gateway.aclose()
    await api.gateway.start()
    assert api.gateway.base_url == url
    assert (await api.chat(created["id"])).status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": 5},
        {"port": -1},
        {"port": 65536},
        {"port": "80"},
        {"port": True},
        {"api_key": ""},
        {"api_key": "with space"},
        {"api_key": "schlüssel"},
        {"api_key": "line\nfeed"},
        {"api_key": 5},
        {"chunks_per_write": 0},
        {"models": "Doubao-1.5-pro-32k"},
        {"models": 5},
        {"models": [""]},
        {"models": {"m": 1}},
        {"models": {"m": "x"}},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A wrong setting is refused by name, a key without the value."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong))) as refused:
        Gateway(**wrong)
    if wrong.get("api_key"):
        assert str(wrong["api_key"]) not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "windows"),
    [
        ({}, dict.fromkeys(MODELS, WINDOW)),
        ({"models": ["a"]}, {"a": WINDOW}),
        ({"models": {"a": 5}}, {"a": 5}),
    ],
)
async def test_models_have_windows(start: Any, settings: dict[str, Any], windows: dict[str, int]) -> None:
    """Ids alone have the default window; a mapping sets windows; the default is the API reference's three models."""
    api = await start(**settings)
    listed = (await api.request("GET", f"{api.gateway.base_url}/models", headers=api.key)).json["data"]
    assert [model["id"] for model in listed] == list(windows)
    for model, window in windows.items():
        await api.create(model=model, messages=[{"role": "user", "content": "x" * 4 * (window - 1)}])
        body = {"model": model, "messages": [{"role": "user", "content": "x" * 4 * window}]}
        refused = await api.post("/context/create", body)
        assert (refused.status, refused.error["code"]) == (400, "OutofContextError")


async def test_contexts_can_be_looked_at_and_expired(start: Any, clock: Any) -> None:
    """`messages` returns the oldest first, None for no such context; `expire` returns whether there was one."""
    api = await start()
    created, other = await api.create(ttl=3600), await api.create()
    assert api.gateway.messages(created["id"]) == (system("Be kind."),)
    assert api.gateway.expire(other["id"]) is True
    assert api.gateway.expire(other["id"]) is False
    clock.now += 3600
    assert api.gateway.messages(created["id"]) is None
    assert api.gateway.messages("ctx-0") is None


@pytest.mark.parametrize("wrong", [{"models": 5}, {"host": 5}, {"api_key": "key with-a-space-0123"}])
def test_a_gateway_whose_constructor_failed_is_silent(wrong: dict[str, Any]) -> None:
    """After a failed constructor the repr works, and a traceback with local variables does not show the key."""
    settings = {"api_key": "sk-not-to-be-shown", **wrong}
    gateway = Gateway.__new__(Gateway)
    with pytest.raises(InvalidInputError) as refused:
        gateway.__init__(**settings)  # type: ignore[misc]  # as type.__call__ does
    assert repr(gateway) == "Gateway(not running)"
    walk = itertools.dropwhile(lambda step: step[0].f_code.co_name != "__init__", walk_tb(refused.tb))
    stack = StackSummary.extract(walk, capture_locals=True)
    shown = "".join(stack.format())
    assert "Gateway(not running)" in shown
    assert settings["api_key"] not in shown


async def test_closing_while_clients_connect_loses_none(start: Any) -> None:
    """A connection accepted in the last moment is closed, not lost by the event loop."""
    api = await start()
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    closing = asyncio.create_task(api.gateway.aclose())
    with ExitStack() as stack:
        while not closing.done():
            with suppress(ConnectionError):
                stack.enter_context(socket.create_connection(("127.0.0.1", api.gateway.port)))
            await asyncio.sleep(0)
        await closing
        await asyncio.sleep(0)
    assert complaints == []


def test_an_event_loop_that_cannot_watch_sockets_will_do() -> None:
    """On such a loop, like Windows' default, a gateway starts, answers, and closes with a stream under way."""

    async def use() -> None:
        before = asyncio.all_tasks()
        dictated = DictatedEngine()
        dictated.say("one")
        async with Gateway(engine=dictated) as gateway, aiohttp.ClientSession() as http:
            api = Api(http, gateway, [], gateway.api_key)
            created = await api.create()
            async with api.open(created["id"], stream=True) as response:
                assert b"one" in await response.content.readany()
                await gateway.aclose()
                with pytest.raises(aiohttp.ClientError):
                    await response.content.read()
        assert dictated.closed.is_set()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        runner.run(use())
