"""What a map asks, a clock for its pauses, and how to look at it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ctxcache import (
    ChatCompletion,
    RateLimitError,
    Retry,
    Usage,
)
from ctxcache.managed.mapping import Answer, Map
from ctxcache.models import AssistantMessage, Choice


def completion(text: str) -> ChatCompletion:
    """An answer with a text."""
    message = AssistantMessage(content=text)
    return ChatCompletion(choices=(Choice(message=message),), usage=Usage(prompt_tokens=1))


def too_fast(retry_after: float | None = None) -> RateLimitError:
    """A 429."""
    return RateLimitError("too fast", status=429, retry_after=retry_after)


class Asked:
    """What a map asks: it notes who asked, and answers when a test says so, or at once with `quick`."""

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self.questions: list[Any] = []
        self.running = 0
        self.most = 0
        self.gates: dict[Any, asyncio.Future[ChatCompletion]] = {}
        self.fails: dict[Any, list[BaseException]] = {}
        self.policies: set[Retry] = set()

    async def __call__(self, question: Any, /, *, retry: Retry) -> ChatCompletion:
        """Answer."""
        self.questions.append(question)
        self.policies.add(retry)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.fails.get(question):
                await asyncio.sleep(0)
                raise self.fails[question].pop(0)
            if self.quick:
                await asyncio.sleep(0)
                return completion(f"re: {question}")
            return await self.gate(question)
        finally:
            self.running -= 1

    def gate(self, question: Any) -> asyncio.Future[ChatCompletion]:
        """What the answer to a question waits for."""
        return self.gates.setdefault(question, asyncio.get_running_loop().create_future())

    def answer(self, *questions: Any) -> None:
        """Answer these now."""
        for question in questions:
            self.gate(question).set_result(completion(f"re: {question}"))


class Time:
    """A clock that only goes on where somebody sleeps; sleepers wake in their order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.slept.append(seconds)
        until = self.now + seconds
        await settle()
        self.now = max(self.now, until)


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """The tasks beside the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def collect(answers: Map[Any]) -> list[Answer[Any]]:
    """All that a map gives."""
    return [answer async for answer in answers]


class Watched:
    """Questions 0 … n-1, and how far they were read; as a generator of either kind it also tells of its end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.closed = False

    def read(self) -> Iterator[int]:
        """A plain generator."""
        try:
            for number in range(self.count):
                self.taken += 1
                yield number
        finally:
            self.closed = True

    async def stream(self) -> AsyncIterator[int]:
        """An async generator."""
        try:
            for number in range(self.count):
                self.taken += 1
                yield number
        finally:
            await asyncio.sleep(0)
            self.closed = True
