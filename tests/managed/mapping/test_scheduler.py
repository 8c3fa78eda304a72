"""`scheduler`: tasks that never hold each other up, retries and pauses, and an end that leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    BadRequestError,
    ChatCompletion,
    CtxCacheError,
    InternalServerError,
    QuotaExceededError,
    RateLimitError,
    Retry,
    SessionError,
)
from ctxcache.managed.mapping import Map

from .asking import Asked, Time, Watched, collect, completion, others, settle, too_fast

pytestmark = pytest.mark.usefixtures("quiet_loop")


async def test_a_slow_reader_is_waited_for(quick: Asked) -> None:
    """While nobody fetches the answers, no more questions are taken than there is room for."""
    watched = Watched(1000)
    async with Map(quick, watched.stream(), concurrency=4) as answers:
        await anext(answers)
        await settle()
        assert watched.taken == 2 * 4 + 1


async def test_a_slow_source_holds_nothing_up(asked: Asked) -> None:
    """While the next question is waited for, answers are delivered and refused questions go again."""
    waiting = asyncio.Event()

    async def questions() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        waiting.set()
        await asyncio.Event().wait()

    asked.fails = {"b": [too_fast()]}
    async with Map(asked, questions(), retry=Retry(first_delay=0)) as answers:
        asked.answer("a", "b")
        assert [(await anext(answers)).text for _ in range(2)] == ["re: a", "re: b"]
        assert waiting.is_set()
        assert asked.questions == ["a", "b", "b"]


@pytest.mark.parametrize("kind", ["read", "stream"])
async def test_a_source_that_raises(asked: Asked, kind: str) -> None:
    """An exception out of the questions ends the map: what is under way is delivered, then it is raised, once."""

    def read() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("unplugged")

    async def stream() -> AsyncIterator[str]:
        for question in read():
            yield question

    asked.answer("a", "b")
    answers = Map(asked, read() if kind == "read" else stream())
    assert {(await anext(answers)).question for _ in range(2)} == {"a", "b"}
    with pytest.raises(OSError, match="unplugged"):
        await anext(answers)
    assert await collect(answers) == []
    assert others() == set()


async def test_closing_the_questions_may_fail(quick: Asked, log_lines: Callable[[str], list[str]]) -> None:
    """What a generator raises when it is closed is logged, without its text, and does no harm."""

    def questions() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise RuntimeError("secret")

    async with Map(quick, questions(), concurrency=1) as answers:
        await anext(answers)
    assert log_lines("WARNING") == ["map: closing the questions failed: RuntimeError"]


async def test_questions_that_close_the_map(quick: Asked) -> None:
    """The questions' own code may close the map."""
    answers: Map[Any]

    async def questions() -> AsyncIterator[str]:
        yield "a"
        await answers.aclose()

    answers = Map(quick, questions())
    assert len(await collect(answers)) < 2
    await settle()
    assert others() == set()


async def test_refused_questions_go_again(quick: Asked, time: Time, timed: Callable[..., Map[Any]]) -> None:
    """A 429 is no result: the question goes again after a pause, `attempts` or not, and each is answered once."""
    quick.fails = {question: [too_fast()] * 5 for question in range(0, 20, 2)}
    answers = await collect(timed(quick, range(20), retry=Retry(attempts=1)))
    assert sorted(answer.index for answer in answers) == list(range(20))
    assert all(answer.ok for answer in answers)
    assert len(quick.questions) == 20 + 10 * 5
    assert time.slept


async def test_the_service_names_the_pause(asked: Asked, time: Time, timed: Callable[..., Map[Any]]) -> None:
    """After a `Retry-After` nobody starts before it is over: neither new questions nor any that go again."""
    starts: list[tuple[Any, float]] = []

    async def ask(question: Any, /, *, retry: Retry) -> ChatCompletion:
        starts.append((question, time.now))
        return await asked(question, retry=retry)

    asked.fails = {0: [too_fast(30.0)], 1: [InternalServerError("busy", status=503)]}
    answers = timed(ask, range(9), concurrency=8, retry=Retry(first_delay=1))
    asked.answer(*range(9))
    assert len(await collect(answers)) == 9
    assert [question for question, at in starts if at == 1000] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert {question for question, at in starts if at > 1000} == {0, 1, 8}
    assert min(at for _, at in starts if at > 1000) == 1030


async def test_it_finds_the_limit(time: Time, timed: Callable[..., Map[Any]]) -> None:
    """A service that takes 5 calls at once is asked all questions, with few refusals, and never given up."""
    running = refused = 0

    async def ask(question: int, /, *, retry: Retry) -> ChatCompletion:
        nonlocal running, refused
        if running >= 5:
            refused += 1
            raise too_fast()
        running += 1
        await asyncio.sleep(0)
        running -= 1
        return completion("")

    answers = await collect(timed(ask, range(1000), concurrency=64))
    assert sorted(answer.index for answer in answers) == list(range(1000))
    assert all(answer.ok for answer in answers)
    assert refused < 400


async def test_given_up_when_nothing_succeeds(time: Time, timed: Callable[..., Map[Any]]) -> None:
    """A 429 becomes a result when nothing at all has succeeded for `max_elapsed` seconds."""

    async def ask(question: int, /, *, retry: Retry) -> ChatCompletion:
        raise too_fast()

    answers = await collect(timed(ask, range(3), retry=Retry(max_elapsed=60)))
    assert [type(answer.error) for answer in answers] == [RateLimitError] * 3
    assert time.now > 1030
    assert all(answer.error is not None and answer.error.attempts > 3 for answer in answers[:1])
    assert others() == set()


async def test_too_long_a_wait_is_a_result(quick: Asked, timed: Callable[..., Map[Any]]) -> None:
    """A `Retry-After` above `max_retry_after` is not waited for; nor is a quota."""
    quick.fails = {0: [too_fast(3600.0)], 1: [QuotaExceededError("spent", status=429)]}
    answers = {answer.index: answer for answer in await collect(timed(quick, range(3)))}
    assert [type(answers[index].error) for index in range(3)] == [RateLimitError, QuotaExceededError, type(None)]
    assert quick.questions.count(0) == 1


async def test_after_too_long_a_wait_nobody_asks(time: Time, timed: Callable[..., Map[Any]]) -> None:
    """Until a `Retry-After` above `max_retry_after` is over, questions fail with that 429 instead of being asked."""
    asked: list[float] = []

    async def ask(question: int, /, *, retry: Retry) -> ChatCompletion:
        asked.append(time.now)
        if time.now < 1600:
            raise too_fast(600.0)
        return completion("")

    async def questions() -> AsyncIterator[int]:
        for number in range(100):
            yield number
        time.now = 1600
        yield 100

    answers = await collect(timed(ask, questions(), concurrency=4))
    assert [answer.ok for answer in answers] == [False] * 100 + [True]
    assert asked == [1000.0] * 4 + [1600]
    errors = [answer.error for answer in answers[:100]]
    assert {(type(error), getattr(error, "retry_after", None)) for error in errors} == {(RateLimitError, 600)}
    assert sorted(error.attempts for error in errors if error is not None) == [0] * 96 + [1] * 4
    assert len({id(error) for error in errors}) == 100


async def test_connections_lost_together_make_one_warning(
    quick: Asked, timed: Callable[..., Map[Any]], log_lines: Callable[[str], list[str]]
) -> None:
    """Where a connection breaks under many questions, the log has one line."""
    quick.fails = {question: [APIConnectionError("lost", sent=True)] for question in range(8)}
    answers = await collect(timed(quick, range(8), retry=Retry(first_delay=1)))
    assert all(answer.ok for answer in answers)
    assert log_lines("WARNING") == ["map: APIConnectionError, attempt 1, again in 1.00 s"]


async def test_lost_answers_are_asked_again(quick: Asked, time: Time, timed: Callable[..., Map[Any]]) -> None:
    """5xx and lost connections are repeated by the policy, one attempt a call; other errors are not."""
    quick.fails = {
        "lost": [APIConnectionError("lost", sent=True)] * 2,
        "down": [InternalServerError("down", status=500) for _ in range(3)],
        "bad": [BadRequestError("no", status=400)],
    }
    told: list[tuple[type[CtxCacheError], int, float]] = []
    answers = timed(
        quick,
        ["lost", "down", "bad"],
        retry=Retry(attempts=3, first_delay=1),
        on_retry=lambda error, attempt, delay: told.append((type(error), attempt, delay)),
    )
    by_question = {answer.question: answer for answer in await collect(answers)}
    assert by_question["lost"].text == "re: lost"
    assert isinstance(by_question["down"].error, InternalServerError)
    assert by_question["down"].error.attempts == 3
    assert {question: quick.questions.count(question) for question in by_question} == {"lost": 3, "down": 3, "bad": 1}
    assert {policy.attempts for policy in quick.policies} == {1}
    assert sorted(told, key=lambda one: (one[0].__name__, one[1])) == [
        (APIConnectionError, 1, 1.0),
        (APIConnectionError, 2, 2.0),
        (InternalServerError, 1, 1.0),
        (InternalServerError, 2, 2.0),
    ]


async def test_on_retry_hears_of_refusals(
    quick: Asked, timed: Callable[..., Map[Any]], log_lines: Callable[[str], list[str]]
) -> None:
    """`on_retry` is told of every question that goes again, with the pause; the log has one line for each pause."""
    quick.fails = {0: [too_fast(5.0)], 1: [too_fast(5.0)]}
    told: list[float] = []
    await collect(timed(quick, range(2), on_retry=lambda error, attempt, delay: told.append(delay)))
    assert told == [5.0, 5.0]
    assert log_lines("WARNING") == ["map: RateLimitError, at most 1 at once, the next in 5.00 s"]


async def test_pauses_end_with_the_map(quick: Asked) -> None:
    """A pause that is left when the last answer is delivered is not slept to its end."""
    quick.fails = {0: [too_fast(3600.0)]}
    assert len(await collect(Map(quick, [0]))) == 1
    assert others() == set()


async def test_cancelled(asked: Asked) -> None:
    """Who waits for an answer may be cancelled: none is lost, and the map goes on until it is closed."""
    answers = Map(asked, range(20), concurrency=4)
    reader = asyncio.ensure_future(anext(answers))
    await settle()
    reader.cancel()
    asked.answer(1)
    await settle()
    assert reader.cancelled()
    assert (await anext(answers)).index == 1
    await answers.aclose()
    assert (asked.running, others()) == (0, set())


async def test_a_broken_ask(asked: Asked) -> None:
    """An exception that is none of the family ends the map at once, and is raised."""
    asked.fails = {2: [TypeError("a bug")]}
    answers = Map(asked, range(100))
    with pytest.raises(TypeError, match="a bug"):
        await collect(answers)
    assert (asked.running, others()) == (0, set())


async def test_its_tasks_are_cancelled_from_outside(asked: Asked) -> None:
    """Who cancels the tasks of a map ends it, with an error; nobody waits for ever."""
    answers = Map(asked, range(100))
    reader = asyncio.ensure_future(collect(answers))
    await settle()
    for task in others() - {reader}:
        task.cancel()
    with pytest.raises(SessionError, match="cancelled from outside"):
        await reader
    assert others() == set()


async def test_an_error_that_was_repeated_elsewhere_is_not_repeated(
    quick: Asked, timed: Callable[..., Map[Any]]
) -> None:
    """A create repeats by itself: its error says so by its attempts."""
    error = InternalServerError("down", status=500)
    error.attempts = 3
    quick.fails = {"?": [error]}
    [answer] = await collect(timed(quick, ["?"], retry=Retry(attempts=3, first_delay=1)))
    assert answer.error is error
    assert quick.questions == ["?"]
