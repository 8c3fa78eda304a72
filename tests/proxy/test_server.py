"""The Proxy object: settings, start and end."""

import asyncio
import socket
import traceback
from contextlib import closing
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ctxcache import APIConnectionError, InvalidInputError, SessionError
from ctxcache.gateway import Gateway
from ctxcache.proxy import Proxy

from .conftest import UPSTREAM_KEY, NotedEngine, Upstream, marked

URL = "http://127.0.0.1:9/v1"
MESSAGES = [{"role": "system", "content": "x"}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": -1}, "port must be"),
        ({"api_key": "two words"}, "api_key must be printable ASCII without spaces"),
        ({"upstream": "ftp://x"}, "upstream must be"),
        ({"upstream": 5}, "upstream must be"),
        ({"upstream": "http://example.com/v1"}, "upstream must be an https URL"),
        ({"upstream_key": ""}, "upstream_key must be printable text: pass upstream_key=… or set CTXCACHE_API_KEY"),
        ({"max_contexts": -1}, "max_contexts must be"),
        ({"learn": 1}, "learn must be"),
        ({"learn_tokens": 0}, "learn_tokens must be"),
        ({"ttl": 5, "prefixes": [{"model": "m", "messages": MESSAGES}]}, "ttl must be"),
        ({"ttl": 5}, "ttl must be"),
        ({"store": 3}, "store must be"),
        ({"limits": 3}, "limits must be"),
        ({"allowed_hosts": "all"}, "allowed_hosts must be"),
        ({"prefixes": "file"}, "prefixes must be"),
        ({"prefixes": [{"model": "m"}]}, "prefixes[0] must be"),
        ({"prefixes": [{"model": "", "messages": MESSAGES}]}, "prefixes[0].model must be"),
        ({"prefixes": [{"model": "m", "messages": [{"role": "user"}]}]}, "prefixes[0].messages[0].content must be"),
        ({"prefixes": [{"model": "m", "messages": [{"role": "assistant", "content": "x"}]}]}, "prefixes[0].messages"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    """A setting out of range is refused at once, by name."""
    with pytest.raises(InvalidInputError) as refused:
        Proxy(**{"upstream_key": UPSTREAM_KEY, "upstream": URL, **settings})
    assert refused.value.message.startswith(message)
    assert message.startswith(refused.value.field.partition("[")[0])
    assert "allow_insecure" not in refused.value.message  # no setting of a proxy


def test_keys_do_not_print() -> None:
    """No key is in the repr, nor in the package's part of a traceback that shows local variables."""
    proxy = Proxy(UPSTREAM_KEY, URL, api_key="sk-front-123456")
    assert proxy.api_key == "sk-front-123456"
    shown = repr(proxy)
    for settings in ({"port": -1}, {"max_contexts": -1}, {"api_key": "sk-front 123456"}):
        with pytest.raises(InvalidInputError) as refused:
            Proxy(**{"upstream_key": UPSTREAM_KEY, "upstream": URL, "api_key": "sk-front-123456", **settings})
        told = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
        frames = [frame for frame in told.stack if "test_server" not in frame.filename]
        assert frames
        shown += f"{told}{[frame.locals for frame in frames]}"
    assert "sk-front" not in shown
    assert "sk-upstream" not in shown


def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and URL of the upstream come from the environment by default; the clients' key is random."""
    monkeypatch.setenv("CTXCACHE_API_KEY", UPSTREAM_KEY)
    monkeypatch.setenv("CTXCACHE_BASE_URL", URL)
    one, other = Proxy(), Proxy()
    assert one.upstream == URL
    assert len({one.api_key, other.api_key, UPSTREAM_KEY}) == 3


async def test_start_and_end() -> None:
    """A proxy listens from start to close, and a closed one stays closed."""
    proxy = Proxy(UPSTREAM_KEY, URL)
    with pytest.raises(SessionError, match="no port"):
        _ = proxy.base_url
    async with proxy:
        assert proxy.base_url == f"http://127.0.0.1:{proxy.port}/v1"
        with pytest.raises(SessionError, match="running"):
            await proxy.start()
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{proxy.port}/healthz") as response:
            assert response.status == 200
    await proxy.aclose()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(SessionError, match="closed"):
        await proxy.start()


async def test_one_start_at_once() -> None:
    """Of two starts at once one is refused, and the close leaves no socket open."""
    proxy = Proxy(UPSTREAM_KEY, URL)
    outcomes = await asyncio.gather(proxy.start(), proxy.start(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), SessionError]
    await proxy.aclose()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_close_ends_a_start_under_way() -> None:
    """A proxy that is closed while starting does not run."""
    proxy = Proxy(UPSTREAM_KEY, URL)
    start = asyncio.create_task(proxy.start())
    await asyncio.sleep(0)
    await proxy.aclose()
    with pytest.raises(SessionError, match="the proxy was closed before the start had ended"):
        await start
    assert repr(proxy) == "Proxy(not running)"


async def test_port_in_use() -> None:
    """A port in use is an error of the family."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = Proxy(UPSTREAM_KEY, URL, port=taken.getsockname()[1])
        with pytest.raises(APIConnectionError, match="cannot listen on 127"):
            await proxy.start()
        await proxy.aclose()


async def test_a_grace_lets_answers_end(upstream: Upstream) -> None:
    """With a grace, answers under way come whole, new connections are refused; the second call cuts the grace short."""
    arrived, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        arrived.set()
        await may_answer.wait()
        return web.json_response({"done": True})

    upstream.answers["/v1/models"] = answer
    async with aiohttp.ClientSession() as http:
        for cut in (False, True):
            arrived.clear()
            may_answer.clear()
            proxy = Proxy(UPSTREAM_KEY, upstream.url)
            await proxy.start()
            key = {"Authorization": f"Bearer {proxy.api_key}"}
            asking = asyncio.create_task(http.get(f"{proxy.base_url}/models", headers=key))
            await arrived.wait()
            closing_proxy = asyncio.create_task(proxy.aclose(grace=60))
            with pytest.raises(ConnectionError):  # refused, or reset while the socket closes
                while True:
                    (await asyncio.open_connection("127.0.0.1", proxy.port))[1].close()
            if cut:
                await proxy.aclose()
                with pytest.raises(aiohttp.ClientError):
                    await asking
            else:
                may_answer.set()
                async with await asking as response:
                    assert await response.json() == {"done": True}
            await closing_proxy
    with pytest.raises(InvalidInputError, match="grace must be"):
        await proxy.aclose(grace=-1)


async def test_close_ends_answers_under_way(gateway: Gateway, engine: NotedEngine) -> None:
    """A proxy that closes cuts its clients and the service's streams."""
    async with aiohttp.ClientSession() as http:
        async with Proxy(UPSTREAM_KEY, gateway.base_url) as proxy:
            key = {"Authorization": f"Bearer {proxy.api_key}"}
            body = marked("endless", stream=True)
            response = await http.post(f"{proxy.base_url}/chat/completions", json=body, headers=key)
            await response.content.readany()
        with closing(response), pytest.raises(aiohttp.ClientError):
            while await response.content.readany():
                pass
    async with asyncio.timeout(5):
        await engine.closed.wait()
