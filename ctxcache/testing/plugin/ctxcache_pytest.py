"""The pytest plugin of ctxcache. pytest loads this file by itself; ctxcache is imported when a fixture is used.

The module is installed outside the package, so that a test run imports nothing of ctxcache before coverage is measured.
"""

import functools
import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ctxcache import AsyncSession
    from ctxcache.testing import Clock, RecordingGateway

MARK = "ctxcache(engine=…, **settings): the engine, or other settings of `Gateway`, for the fixture ctxcache_gateway"


def pytest_configure(config: pytest.Config) -> None:
    """Describe the mark."""
    config.addinivalue_line("markers", MARK)


@pytest.fixture
def ctxcache_clock() -> "Clock":
    """The time of the gateway: `ctxcache_clock.advance(3601)` lets contexts of an hour expire."""
    from ctxcache.testing import Clock

    return Clock()


@pytest.fixture
def ctxcache_gateway(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, ctxcache_clock: "Clock"
) -> Iterator["RecordingGateway"]:
    """A gateway on a real socket, which `CTXCACHE_BASE_URL` and `CTXCACHE_API_KEY` lead to: a `RecordingGateway`."""
    from ctxcache.testing import RecordingGateway

    settings: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("ctxcache"))):  # the nearest last
        settings.update(mark.kwargs)
    engine = settings.get("engine")
    if isinstance(engine, type):
        settings["engine"] = engine()
    with RecordingGateway(**{"clock": ctxcache_clock, **settings}) as gateway:
        monkeypatch.setenv("CTXCACHE_BASE_URL", gateway.base_url)
        monkeypatch.setenv("CTXCACHE_API_KEY", gateway.api_key)
        yield gateway


@pytest.fixture
def ctxcache_session(ctxcache_gateway: "RecordingGateway") -> "AsyncSession":
    """An `AsyncSession` on the gateway, closed at the end of an async test. A test that is not async closes it."""
    from ctxcache import AsyncSession

    return AsyncSession(ctxcache_gateway.api_key, ctxcache_gateway.base_url)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let an async test close its session, in its own event loop, whichever plugin runs it."""
    session = getattr(item, "funcargs", {}).get("ctxcache_session")
    test = getattr(item, "obj", None)
    if session is None or not inspect.iscoroutinefunction(test):
        return (yield)

    @functools.wraps(test)
    async def closing(*args: Any, **named: Any) -> None:
        async with session:
            await test(*args, **named)

    item.obj = closing  # type: ignore[attr-defined]  # a function's item
    try:
        return (yield)
    finally:
        item.obj = test  # type: ignore[attr-defined]
