"""`map`: every question gets one answer, in bounded memory, and whatever ends a map leaves nothing behind."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    AsyncSession,
    BadRequestError,
    ChatCompletion,
    InvalidInputError,
    Retry,
    SessionError,
    Usage,
)
from ctxcache.managed.mapping import Answer, Map

from ...hostile import CHAT, STALL, Hostile, answer, refusal
from .asking import Asked, Time, Watched, collect, others, settle

pytestmark = pytest.mark.usefixtures("quiet_loop")


async def test_in_order(asked: Asked) -> None:
    """With `ordered` an answer waits for those before it; what is held for that is bounded."""
    watched = Watched(100)
    answers = Map(asked, watched.read(), concurrency=4, ordered=True)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    for number in range(1, 8):
        asked.answer(number)
        await settle()
    assert watched.taken == 8
    assert not first.done()
    asked.answer(0, *range(8, 100))
    assert [(await first).index] + [answer.index for answer in await collect(answers)] == list(range(100))


async def test_as_they_complete(asked: Asked) -> None:
    """Each answer comes as soon as it is there, with its question, its place, its text and its usage."""
    answers = Map(asked, ["a", "b", "c"])
    first = asyncio.ensure_future(anext(answers))
    await settle()
    assert asked.questions == ["a", "b", "c"]
    asked.answer("b")
    got = await first
    assert (got.index, got.question, got.text, got.usage, got.ok) == (1, "b", "re: b", Usage(prompt_tokens=1), True)
    asked.answer("c")
    await settle()
    asked.answer("a")
    assert [answer.question for answer in await collect(answers)] == ["c", "a"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_error_is_a_result(quick: Asked, ordered: bool) -> None:
    """A question that fails has its error in its answer, `text` raises it, and the others go on."""
    quick.fails = {"bad": [BadRequestError("no", status=400)], "worse": [InvalidInputError.of("messages", [], "some")]}
    answers = await collect(Map(quick, ["good", "bad", "worse", "fine"], ordered=ordered))
    by_question = {answer.question: answer for answer in answers}
    assert {question: answer.ok for question, answer in by_question.items()} == {
        "good": True,
        "bad": False,
        "worse": False,
        "fine": True,
    }
    assert by_question["bad"].usage is None
    with pytest.raises(BadRequestError):
        _ = by_question["bad"].text
    assert by_question["bad"].error.__traceback__ is not None  # of this raise alone: no frames of the map are held
    assert by_question["worse"].error.__traceback__ is None


def test_what_was_never_made() -> None:
    """A map that could not be made complains of nothing when it is collected."""
    with pytest.raises(TypeError):
        Map()  # type: ignore[call-arg]
    gc.collect()


async def test_several_readers(quick: Asked) -> None:
    """Tasks may share the iteration: each answer goes to one of them, and all of them end."""
    answers = Map(quick, range(50))
    parts = await asyncio.gather(*(collect(answers) for _ in range(3)))
    assert sorted(answer.index for part in parts for answer in part) == list(range(50))


async def test_nothing_to_ask(quick: Asked) -> None:
    """No questions, no answers, and no end of that."""
    answers = Map(quick, [])
    assert await collect(answers) == []
    assert await collect(answers) == []
    assert others() == set()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"questions": 5}, "questions"),
        ({"questions": "one string"}, "questions"),
        ({"questions": {"role": "user", "content": "one message"}}, "questions"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"retry": 3}, "retry"),
    ],
)
async def test_arguments_are_checked(quick: Asked, arguments: dict[str, Any], field: str) -> None:
    """What cannot be mapped is refused at once, with the name of the argument."""
    with pytest.raises(InvalidInputError) as refused:
        Map(quick, **{"questions": [], **arguments})
    assert refused.value.field == field


@pytest.mark.parametrize(("count", "ordered"), [(200_000, False), (20_000, True)])
async def test_many_in_constant_memory(count: int, ordered: bool) -> None:
    """However many questions there are, no more are held than twice the concurrency, nor asked at once than it."""
    watched, asked, delivered = Watched(count), Asked(quick=True), 0
    async for _ in Map(asked, watched.read(), concurrency=16, ordered=ordered):
        delivered += 1
        assert watched.taken - delivered < 2 * 16
        asked.questions.clear()
    assert delivered == count
    assert asked.most == 16


async def test_left_by_break(asked: Asked) -> None:
    """A map that is left and forgotten is collected, and that ends its calls and its questions."""
    watched = Watched(100)
    asked.answer(3)
    async for _ in Map(asked, watched.stream()):
        break
    gc.collect()
    await settle()
    assert (asked.running, watched.closed, others()) == (0, True, set())


async def test_collected_in_another_thread(asked: Asked) -> None:
    """Whichever thread collects it, its tasks end in their loop."""
    holder = [Map(asked, range(100))]
    asked.answer(0)
    await anext(holder[0])
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    await settle()
    assert (asked.running, others()) == (0, set())


async def test_closed_under_its_reader(asked: Asked) -> None:
    """`aclose` ends the iteration of other tasks, waits for the calls to end, and may be repeated."""
    answers = Map(asked, range(100))
    reader = asyncio.ensure_future(collect(answers))
    await settle()
    assert asked.running == 8
    await answers.aclose()
    assert asked.running == 0
    await answers.aclose()
    assert await reader == []
    assert others() == set()


def test_two_event_loops(quick: Asked) -> None:
    """A map belongs to the loop it began in; left over when that ends, it complains of nothing."""
    answers = [Map(quick, range(100))]

    async def once() -> Answer[int]:
        return await anext(answers[0])

    asyncio.run(once())
    with pytest.raises(SessionError, match="another event loop"):
        asyncio.run(once())
    answers.clear()
    gc.collect()


async def test_over_a_session(session_for: Callable[..., AsyncSession], hostile: Hostile) -> None:
    """With a session's chat as `ask`: 429s pause all, a lost reply is asked again, an error is a result."""
    session = session_for()
    hostile.plays([refusal(429, "RateLimitExceeded", "slow", "Retry-After: 0")], [answer()], [refusal(500)], [answer()])

    async def ask(question: str, /, *, retry: Retry) -> ChatCompletion:
        return await session.chat.create(**{**CHAT, "messages": [question]}, retry=retry, repeatable=True)

    message = {"role": "user", "content": "Hello"}
    retry = Retry(first_delay=0.001)
    answers = await collect(Map(ask, [message, "no message", message], concurrency=1, retry=retry, ordered=True))
    assert [answer.ok for answer in answers] == [True, False, True]
    assert isinstance(answers[1].error, InvalidInputError)
    assert len(hostile.posts) == 4


async def test_session_closed_under_it(session_for: Callable[..., AsyncSession], hostile: Hostile) -> None:
    """When the session is closed, what is under way and what is left fail, each with its error, and the map ends."""
    session = session_for()
    hostile.plays(*[[STALL]] * 8)

    async def ask(question: dict[str, str], /, *, retry: Retry) -> ChatCompletion:
        return await session.chat.create(**CHAT, retry=retry, repeatable=True)

    reader = asyncio.ensure_future(collect(Map(ask, range(20))))
    await hostile.until(lambda: len(hostile.posts) == 8)
    await session.aclose()
    answers = await reader
    assert len(answers) == 20
    assert all(isinstance(answer.error, APIConnectionError | SessionError) for answer in answers)


async def test_a_pause_of_other_processes(quick: Asked, time: Time, timed: Callable[..., Map[Any]]) -> None:
    """The map asks how long to wait before calls start, and joins the pause; then all questions are asked."""
    pauses = [5.0]

    def paused() -> float:
        return pauses.pop() if pauses else 0.0

    answers = await collect(timed(quick, range(20), paused=paused))
    assert all(answer.ok for answer in answers)
    assert sorted(quick.questions) == list(range(20))
    assert time.now >= 1005
