"""Fixtures that every room uses: a clean environment, the hostile server, sessions that must leave nothing behind."""

import asyncio
import gc
import os
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import aioresponses.core
import pytest

from ctxcache import AsyncSession, Retry, Timeouts
from ctxcache.client.environment import Environment

from .hostile import Hostile

KEY = "sk-test/0123456789+abcdef"  # no part of it is a word that may stand in a log for another reason


# What tests start as processes of their own sees the installed package as well, not the folder they stand in.
os.environ["PYTHONSAFEPATH"] = "1"

_NOTHING_WRITTEN = types.SimpleNamespace(output_size=0)


class MockedResponse(aiohttp.ClientResponse):
    """What aioresponses makes of aiohttp 3.14, which wants a `stream_writer` (pnuckowski/aioresponses#289)."""

    def __init__(self, *args: Any, stream_writer: Any = _NOTHING_WRITTEN, **named: Any) -> None:
        super().__init__(*args, stream_writer=stream_writer, **named)


aioresponses.core.ClientResponse = MockedResponse


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests choose their event loop."""
    parser.addoption("--uvloop", action="store_true", help="run the event loop of each async test on uvloop")


def pytest_asyncio_loop_factories(config: pytest.Config) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of async tests: asyncio's own, or uvloop's."""
    if not config.getoption("--uvloop"):
        return {"asyncio": asyncio.new_event_loop}
    import uvloop

    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> None:
    """Garbage collections, of which many tests make one, look at what this file made, not at all that is there."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, base URL or proxy of the machine reaches a test."""
    for name in (
        "CTXCACHE_API_KEY",
        "CTXCACHE_BASE_URL",
        *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")),
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def key() -> str:
    """The key of the sessions that tests make."""
    return KEY


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """The event loop hears of no exception that nobody retrieved, no task that was destroyed."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@pytest.fixture
async def hostile(quiet_loop: None) -> AsyncIterator[Hostile]:
    """A hostile server; a test tells it what to play."""
    async with Hostile() as server:
        yield server


@pytest.fixture
async def session_for(hostile: Hostile) -> AsyncIterator[Callable[..., AsyncSession]]:
    """Make sessions on a server (default: `hostile`), quick to retry. At the end of the test they must hold nothing.

    `environment` gives them other clocks, another sleep, other dice.
    """
    made: list[AsyncSession] = []

    def make(server: Hostile = hostile, environment: Environment | None = None, **settings: Any) -> AsyncSession:
        settings = {"retry": Retry(first_delay=0.001), "timeouts": Timeouts(head=5, idle=5), **settings}
        kind = AsyncSession if environment is None else session_class(environment)
        made.append(kind(KEY, server.url, **settings))
        return made[-1]

    yield make
    for session in made:
        held = session.holdings()
        await session.aclose()
        assert held == {}


def session_class(environment: Environment) -> type[AsyncSession]:
    """The class of sessions that live in an environment of the test's own."""
    return type("AsyncSession", (AsyncSession,), {"_environment": environment})


@pytest.fixture
def session(session_for: Callable[..., AsyncSession]) -> AsyncSession:
    """A session on `hostile`."""
    return session_for()


@pytest.fixture
def held() -> Callable[[AsyncSession], dict[str, float]]:
    """The function that says what a session holds for calls under way: {} if there are none."""
    return AsyncSession.holdings


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The lines of the logger `ctxcache` of one level, so far."""
    caplog.set_level("DEBUG", logger="ctxcache")
    return lambda level: [r.getMessage() for r in caplog.records if r.name == "ctxcache" and r.levelname == level]
