"""A gateway that counts what workers ask."""

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from ctxcache import system
from ctxcache.cluster import PrefixAsker
from ctxcache.gateway import Gateway, NewContext, Prompt

from ..conftest import KEY

# Words in the log of a driver or a worker that tell of a leak.
NOISE = ("Unclosed", "never closed", "never awaited", "never retrieved", "destroyed", "Event loop is closed", "Error")

MODEL = "Doubao-1.5-pro-32k"
MANUAL = "The manual, which every question is about."


class CountingEngine:
    """Answers "about QUESTION".

    Attributes:
        contexts: the contexts made, in order.
        asked: how often each question came.
        each: called before each answer.
    """

    def __init__(self) -> None:
        self.contexts: list[NewContext] = []
        self.asked: Counter[str] = Counter()
        self.each: Callable[[], object] = lambda: None

    async def prepare(self, context: NewContext) -> None:
        """Note a new context."""
        self.contexts.append(context)

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Answer."""
        question = prompt.question[-1].text
        self.asked[question] += 1
        self.each()
        yield f"about {question}"


@pytest.fixture
def engine() -> CountingEngine:
    """The gateway's engine."""
    return CountingEngine()


@pytest.fixture
async def gateway(engine: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway, whose key is in the environment, as in that of a worker."""
    async with Gateway(api_key=KEY, engine=engine) as gateway:
        monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
        yield gateway


@pytest.fixture
def asker_for(gateway: Gateway) -> Callable[..., PrefixAsker]:
    """Make an asker on the gateway."""

    def make(**settings: object) -> PrefixAsker:
        given = {"model": MODEL, "messages": [system(MANUAL)], "base_url": gateway.base_url, **settings}
        return PrefixAsker(**given)  # type: ignore[arg-type]  # some are wrong

    return make
