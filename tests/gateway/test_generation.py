"""An engine at work, without HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache.errors import BadRequestError, InternalServerError, RateLimitError
from ctxcache.gateway import Piece
from ctxcache.gateway.generation import Generation
from ctxcache.gateway.rules.served import AcceptedChat
from ctxcache.gateway.rules.table import ContextTable
from ctxcache.models import ChatRequest, ContextRequest, TruncationStrategy, user


def accepted(clock: Any, **fields: Any) -> AcceptedChat:
    """Return an accepted chat."""
    table = ContextTable({"m": 1000}, clock, lambda below: 0)
    context = table.create(ContextRequest(model="m", messages=[user("abcd")]))
    return table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("abcd")], **fields))


async def test_leaving_waits_until_the_engine_is_closed(clock: Any) -> None:
    """An engine has finished cleaning up when the generation is left."""

    class Tidy:
        tidy = 0

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                self.tidy += 1

    engine = Tidy()
    before = asyncio.all_tasks()
    async with Generation(engine, accepted(clock, n=3), ahead=10) as generation:
        await generation.take()
    assert engine.tidy == 3
    assert asyncio.all_tasks() == before


async def test_an_engine_is_never_further_ahead_than_allowed(clock: Any) -> None:
    """An engine waits for the reader, and goes on as soon as something is taken."""

    class Counting:
        count = 0

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            for _ in range(25):
                self.count += 1
                yield "x"

    async with Generation(Counting(), accepted(clock), ahead=10) as generation:
        assert len(await generation.take()) == 10, "one that does not wait is not interrupted before"
    engine = Counting()
    taken = []
    async with Generation(engine, accepted(clock), ahead=10) as generation:
        while not generation.done:
            for _ in range(50):
                await asyncio.sleep(0)
            taken.append(await generation.take())
    assert [len(items) for items in taken] == [10, 10, 6]
    assert taken[-1][-1] == (0, None)


async def test_what_an_engine_wrote_before_it_failed_is_taken_first(clock: Any, dictated: Any) -> None:
    """Fragments written before a failure are taken before the failure, and the generation is never `done`."""
    dictated.say("one", "two", RuntimeError())
    async with Generation(dictated, accepted(clock), ahead=10) as generation:
        await dictated.closed.wait()
        assert await generation.take() == [(0, "one"), (0, "two")]
        assert not generation.done
        for _ in range(2):
            with pytest.raises(InternalServerError, match="unexpected internal error"):
                await generation.take()


class Batches:
    """An engine that yields each of its lists, or raises it; `asked` counts the lists asked for."""

    all_replies = batches = True

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.asked = self.closed = 0
        self.task: asyncio.Task[Any] | None = None

    async def generate(self, prompt: Any) -> AsyncIterator[list[Piece]]:
        """Yield the lists."""
        self.task = asyncio.current_task()
        try:
            for item in self.items:
                self.asked += 1
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    await asyncio.Event().wait()
                yield item
        finally:
            self.closed += 1


@pytest.mark.parametrize("empty", [True, False])
async def test_an_engine_of_batches_that_never_waits_lets_others_run(clock: Any, empty: bool) -> None:
    """Other tasks run while an engine yields list after list, even without a piece for the reader."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    engine = Batches(*[[] if empty else [Piece(text="x")]] * 2000)
    async with Generation(engine, accepted(clock), ahead=10) as generation:
        while not generation.done:
            await generation.take()
    counting.cancel()
    assert turns >= 5


async def test_the_reader_runs_an_engine_of_batches(clock: Any) -> None:
    """Each list is taken at once, in the reader's own task, and none is asked for before the last one was taken."""
    engine = Batches([Piece(text="a"), Piece(text="b", index=1)], [], [Piece(text="c", finish_reason="length")])
    chat = accepted(clock, n=2)
    async with Generation(engine, chat, ahead=10) as generation:
        assert engine.asked == 0
        assert await generation.take() == [(0, "a"), (1, "b")]
        for _ in range(10):
            await asyncio.sleep(0)
        assert engine.asked == 1
        assert await generation.take() == [(0, "c")]
        assert not generation.done
        assert await generation.take() == [(0, None), (1, None)]
        assert generation.done
        assert engine.task is asyncio.current_task()
    assert [reply.finish_reason for reply in chat.replies] == ["length", "stop"]
    assert engine.closed == 1


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("secret"), asyncio.CancelledError(), [5], [Piece(index=3)], [Piece(text="\ud800")], Piece(text="x")],
)
async def test_a_failure_between_batches_is_one_of_the_engine(clock: Any, failure: Any) -> None:
    """A failure, a cancellation or a bad list comes after the earlier lists, and closes the engine."""
    engine = Batches([Piece(text="a")], failure, [Piece(text="b")])
    async with Generation(engine, accepted(clock), ahead=10) as generation:
        assert await generation.take() == [(0, "a")]
        for _ in range(2):
            with pytest.raises(InternalServerError, match="unexpected internal error"):
                await generation.take()
        assert not generation.done
    assert engine.closed == 1


@pytest.mark.parametrize("batches", [(None,), ([Piece(text="a")], None)])
async def test_a_reader_that_is_cancelled_cancels_an_engine_of_batches(clock: Any, batches: Any) -> None:
    """A client that leaves while the engine waits cancels the engine, and the cancellation is no failure."""
    engine = Batches(*batches)

    async def read() -> None:
        async with Generation(engine, accepted(clock), ahead=10) as generation:
            while True:
                await generation.take()

    reader = asyncio.create_task(read())
    while engine.asked < len(batches):  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert engine.closed == 1


async def test_a_reader_that_leaves_closes_an_engine_of_batches(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A generation that is left early closes the engine; a failure of the closing is logged, and goes no further."""

    class Untidy(Batches):
        async def generate(self, prompt: Any) -> AsyncIterator[list[Piece]]:
            try:
                yield [Piece(text="a")]
            finally:
                raise RuntimeError("in closing")

    async with Generation(Untidy(), accepted(clock), ahead=10) as generation:
        assert await generation.take() == [(0, "a")]
    assert "in closing" in caplog.text
    caplog.clear()


async def fragments(engine: Any, chat: AcceptedChat) -> list[Any]:
    """Take all fragments."""
    taken = []
    async with asyncio.timeout(5), Generation(engine, chat, ahead=10) as generation:
        while not generation.done:
            taken += await generation.take()
    return taken


async def test_a_refusal_of_the_engine_is_passed_on(clock: Any, dictated: Any) -> None:
    """An `APIStatusError` is raised unchanged."""
    refusal = RateLimitError("Too fast.", status=429)
    dictated.say(refusal)
    with pytest.raises(RateLimitError) as raised:
        await fragments(dictated, accepted(clock))
    assert raised.value is refusal


@pytest.mark.parametrize("piece", [5, b"5", "\ud800", asyncio.CancelledError(), RuntimeError("secret")])
async def test_what_is_no_text_is_a_failure_of_the_engine(clock: Any, dictated: Any, piece: Any) -> None:
    """A piece that is not text, and an engine that cancels itself, is a failure of the engine."""
    dictated.say(piece)
    with pytest.raises(InternalServerError, match="unexpected internal error"):
        await fragments(dictated, accepted(clock))


async def test_replies_alternate(clock: Any) -> None:
    """Engines that never wait write several replies in turn, piece by piece."""

    class Fast:
        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            for _ in range(3):
                yield "你"

    taken = await fragments(Fast(), accepted(clock, n=2))
    assert taken == [*[(0, "你"), (1, "你")] * 3, (0, None), (1, None)]


async def test_a_reply_that_has_ended_wants_no_more(clock: Any) -> None:
    """A stop string closes the engine; held text comes at the end."""

    class Endless:
        def __init__(self, *pieces: str) -> None:
            self.pieces = pieces
            self.closed = 0

        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            try:
                for piece in self.pieces:
                    yield piece
            finally:
                self.closed += 1

    engine = Endless("ab", "E", "ND", "cd")
    assert await fragments(engine, accepted(clock, stop="END")) == [(0, "ab"), (0, None)]
    assert engine.closed == 1
    assert await fragments(Endless("ab", "EN"), accepted(clock, stop="END")) == [(0, "ab"), (0, "EN"), (0, None)]


async def test_a_reply_without_a_token_asks_no_engine(clock: Any, dictated: Any) -> None:
    """A window without room makes an empty reply, without the engine."""
    table = ContextTable({"m": 2}, clock, lambda _: 0)
    strategy = TruncationStrategy(type="rolling_tokens", rolling_tokens=False)
    context = table.create(ContextRequest(model="m", messages=[user("a")], truncation_strategy=strategy))
    with pytest.raises(BadRequestError):
        table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("abcd")]))
    table = ContextTable({"m": 3}, clock, lambda _: 0)
    context = table.create(ContextRequest(model="m", messages=[user("a")], truncation_strategy=strategy))
    first = table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("a")]))
    dictated.say("x", None)
    assert await fragments(dictated, first) == [(0, "x"), (0, None)]
    first.complete()
    second = table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("a")]))
    assert await fragments(dictated, second) == [(0, None)]
    assert len(dictated.prompts) == 1


async def test_any_async_iterator_is_an_engines_reply(clock: Any) -> None:
    """An iterator without `aclose` is a reply too."""

    class Pieces:
        def __init__(self) -> None:
            self.left = ["a", "", "b"]

        def generate(self, prompt: Any) -> "Pieces":
            return self

        def __aiter__(self) -> "Pieces":
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    assert await fragments(Pieces(), accepted(clock)) == [(0, "a"), (0, "b"), (0, None)]


async def test_an_interrupted_engine_writes_no_more(clock: Any) -> None:
    """The failure comes after what was written before, however fast the engine and slow the reader."""

    class Endless:
        async def generate(self, prompt: Any) -> AsyncIterator[str]:
            while True:
                yield "x"

    refusal = RateLimitError("Enough.", status=503)
    taken = []
    async with Generation(Endless(), accepted(clock), ahead=10) as generation:
        with pytest.raises(RateLimitError) as raised:
            for _ in range(4):
                taken.append(await generation.take())
                generation.interrupt(refusal)
                for _ in range(50):
                    await asyncio.sleep(0)
    assert raised.value is refusal
    assert len(taken) <= 2
    assert not generation.done


async def test_what_has_ended_cannot_be_interrupted(clock: Any, dictated: Any) -> None:
    """Replies that are complete are taken to the end."""
    dictated.say("one", None)
    async with Generation(dictated, accepted(clock), ahead=10) as generation:
        await dictated.closed.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        generation.interrupt(RateLimitError("Enough.", status=503))
        assert await generation.take() == [(0, "one"), (0, None)]
        assert generation.done
