"""Many batches, one map."""

import asyncio
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from ctxcache import ChatCompletion, Choice, Retry, SessionError
from ctxcache.cluster.line import Line
from ctxcache.managed import Map
from ctxcache.models import AssistantMessage


class Asked:
    """A service that echoes questions when it is told to.

    Attributes:
        questions: those that came, in order.
        open: answers wait until it is set.
        maps: how many maps were opened.
        closed: how many of them are closed.
        failure: raised in place of an answer, or when a map is opened if it is a `SessionError`.
    """

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.maps = self.closed = 0
        self.failure: Exception | None = None

    async def ask(self, question: str, /, *, retry: Retry) -> ChatCompletion:
        """Answer one question."""
        self.questions.append(question)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        message = AssistantMessage(role="assistant", content=question)
        choice = Choice(index=0, message=message, finish_reason="stop")
        return ChatCompletion(id="c", object="chat.completion", created=1, model="m", choices=(choice,))

    @asynccontextmanager
    async def start(self, questions: AsyncIterable[Any]) -> AsyncIterator[Map[Any]]:
        """Open a map."""
        self.maps += 1
        if isinstance(self.failure, SessionError):
            raise self.failure
        try:
            async with Map(self.ask, questions, concurrency=4) as answers:
                yield answers
        finally:
            self.closed += 1


@pytest.fixture
def asked(quiet_loop: None) -> Asked:
    """A service; no test leaves an exception that nobody retrieved."""
    return Asked()


@pytest.fixture
async def line(asked: Asked) -> AsyncIterator[Line]:
    """A line to it."""
    line = Line(asked.start)
    yield line
    await line.aclose()


async def texts(asking: Awaitable[list[Any]]) -> list[str]:
    """The texts of the answers."""
    return [answer.text for answer in await asking]


async def test_batches_get_their_own_answers(line: Line, asked: Asked) -> None:
    """Concurrent batches share a map, and each has its own answers in its own order."""
    batches = [[f"{batch}.{row}" for row in range(batch + 1)] for batch in range(20)]
    assert await asyncio.gather(*(texts(line.ask(batch)) for batch in batches)) == batches
    assert asked.maps == 1


async def test_first_come_first_served(line: Line, asked: Asked) -> None:
    """The questions are asked in the order of the batches, the next batch's while the last ones are answered."""
    asked.open.clear()
    tasks = [asyncio.create_task(line.ask([f"{batch}.{row}" for row in range(3)])) for batch in range(3)]
    async with asyncio.timeout(5):
        while len(asked.questions) < 4:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)
    assert asked.questions == ["0.0", "0.1", "0.2", "1.0"]
    asked.open.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_batch_asks_no_more(line: Line, asked: Asked) -> None:
    """Questions of a cancelled batch that were not asked are dropped; other batches go on."""
    asked.open.clear()
    task = asyncio.create_task(line.ask([f"q{n}" for n in range(100)]))
    async with asyncio.timeout(5):
        while len(asked.questions) < 4:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked.open.set()
    assert await texts(line.ask(["after"])) == ["after"]
    assert len(asked.questions) < 100 / 2


async def test_a_line_that_cannot_be_opened(asked: Asked) -> None:
    """Every batch gets the error, those after the end, too."""
    asked.failure = SessionError("no")
    line = Line(asked.start)
    for ask in (line.ask(["a"]), line.ask(["after the end"])):
        with pytest.raises(SessionError) as caught:
            await ask
        assert caught.value is asked.failure
    assert line.ended


async def test_later_batches_gather_no_frames(asked: Asked) -> None:
    """The error that each batch after the end gets has the frames of this call alone."""
    asked.failure = SessionError("no")
    line = Line(asked.start)
    depths = []
    for _ in range(4):
        with pytest.raises(SessionError) as caught:
            await line.ask(["a"])
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert depths[1:] == [2, 2, 2]


async def test_a_foreign_exception_ends_the_line(line: Line, asked: Asked) -> None:
    """An exception outside the family reaches the waiting batches, and everything is closed."""
    asked.failure = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await line.ask(["a", "b"])
    assert line.ended
    await line.aclose()
    assert (asked.maps, asked.closed) == (1, 1)


async def test_closing_ends_what_is_under_way(line: Line, asked: Asked) -> None:
    """Batches under way get a `SessionError`; the map is closed; a second close does nothing."""
    asked.open.clear()
    task = asyncio.create_task(line.ask(["a", "b"]))
    await asyncio.sleep(0)
    await line.aclose()
    with pytest.raises(SessionError, match="the worker ended"):
        await task
    assert line.ended
    assert (asked.maps, asked.closed) == (1, 1)
    await line.aclose()


async def test_a_failure_to_close_is_no_noise(asked: Asked, log_lines: Callable[[str], list[str]]) -> None:
    """What cannot be closed any more is told to the log at DEBUG only."""

    @asynccontextmanager
    async def start(questions: AsyncIterable[Any]) -> AsyncIterator[Map[Any]]:
        try:
            async with asked.start(questions) as answers:
                yield answers
        finally:
            raise RuntimeError("no threads any more")

    opened: Callable[[AsyncIterable[Any]], AbstractAsyncContextManager[Map[Any]]] = start
    line = Line(opened)
    assert await texts(line.ask(["a"])) == ["a"]
    await line.aclose()
    assert "cluster: closing failed: RuntimeError" in log_lines("DEBUG")
