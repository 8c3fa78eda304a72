"""What tests of managed contexts share: a clock that stands still, a service that keeps time by it, its sessions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ctxcache import AsyncSession, Hooks, Retry, system
from ctxcache.managed import Prefix

from .service import Service

MODEL = "Doubao-1.5-pro-32k"
MANUAL = "The manual, which nobody else may read."


class Clock:
    """A wall clock, in Unix seconds, that stands still until a test moves it: 2024-12-11 10:43:33 UTC."""

    def __init__(self) -> None:
        self.now = 1733913813.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """The clock of the contexts under test."""
    return Clock()


@pytest.fixture
async def service(clock: Clock, quiet_loop: None) -> AsyncIterator[Service]:
    """A service that lets contexts expire as it is told."""
    async with Service(clock) as service:
        yield service


@pytest.fixture
def told() -> list[tuple[str, Any]]:
    """What the hooks of `session` were told: name and event."""
    return []


@pytest.fixture
async def session(
    service: Service, key: str, told: list[tuple[str, Any]], held: Callable[[AsyncSession], dict[str, Any]]
) -> AsyncIterator[AsyncSession]:
    """A session on `service`, with hooks and without pauses; at the end of the test it must hold nothing."""
    names = ("on_create", "on_recreate", "on_retry", "on_warning")
    hooks: dict[str, Any] = {name: lambda event, name=name: told.append((name, event)) for name in names}
    async with AsyncSession(key, service.url, retry=Retry(first_delay=0), hooks=Hooks(**hooks)) as session:
        yield session
        await asyncio.sleep(0)
        assert held(session) == {}


@pytest.fixture
def prefix_for(session: AsyncSession, clock: Clock) -> Callable[..., Prefix]:
    """Make a Prefix on `session` and `clock`."""

    def make(**settings: Any) -> Prefix:
        return Prefix(
            session, **{"model": MODEL, "messages": [system(MANUAL)], "ttl": 3600, "clock": clock, **settings}
        )

    return make


@pytest.fixture
def prefix(prefix_for: Callable[..., Prefix]) -> Prefix:
    """A Prefix on `session` and `clock`, with a ttl of an hour."""
    return prefix_for()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Let everything else run until a condition holds; seconds pass only where it never does."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0)

    return wait
