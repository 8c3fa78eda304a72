"""`mapping`: every question gets one answer, in bounded memory, and whatever ends a map leaves nothing behind."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxcache import (
    APIConnectionError,
    AsyncSession,
    BadRequestError,
    ChatCompletion,
    CtxCacheError,
    InternalServerError,
    InvalidInputError,
    QuotaExceededError,
    RateLimitError,
    Retry,
    SessionError,
    Usage,
)
from ctxcache.managed.mapping import Answer, Map
from ctxcache.models import AssistantMessage, Choice

from ...hostile import CHAT, STALL, Hostile, answer, refusal

pytestmark = pytest.mark.usefixtures("quiet_loop")


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


@pytest.fixture
def asked() -> Asked:
    """A service that answers when it is told to."""
    return Asked()


@pytest.fixture
def quick() -> Asked:
    """A service that answers at once."""
    return Asked(quick=True)


@pytest.fixture
def time() -> Time:
    """A clock."""
    return Time()


@pytest.fixture
def timed(time: Time) -> Callable[..., Map[Any]]:
    """Make a map whose pauses take no time."""

    def make(ask: Any, questions: Any, **options: Any) -> Map[Any]:
        return Map(ask, questions, clock=time.clock, sleep=time.sleep, random=lambda: 0.0, **options)

    return make


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


# --- answers ----------------------------------------------------------------------------------------------------------


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


async def test_contents_do_not_show() -> None:
    """The repr of an answer has neither the question nor the text."""
    assert repr(Answer(3, "secret", completion("hidden"))) == "Answer(index=3, error=None)"


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


# --- the questions ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["read", "stream"])
@pytest.mark.parametrize("way", ["end", "aclose", "never begun"])
async def test_generators_are_closed(quick: Asked, kind: str, way: str) -> None:
    """A generator of questions is closed when the map ends, however it ends, and even where it never began."""
    watched = Watched(100)
    questions = getattr(watched, kind)()
    async with Map(quick, questions, concurrency=2) as answers:
        if way != "never begun":
            await anext(answers)
        if way == "end":
            await collect(answers)
    assert watched.closed or way == "never begun"
    with pytest.raises((StopIteration, StopAsyncIteration)):
        if kind == "read":
            next(questions)
        else:
            await anext(questions)


async def test_files_stay_open(quick: Asked, tmp_path: Path) -> None:
    """What is no generator is left to its owner."""
    (tmp_path / "q.txt").write_text("a\nb\n")
    with (tmp_path / "q.txt").open() as file:
        assert len(await collect(Map(quick, file))) == 2
        assert not file.closed


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


# --- 429 and other errors ---------------------------------------------------------------------------------------------


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
    """`on_retry` is told of every question that goes again, with the pause; the log has one line for each cut."""
    quick.fails = {0: [too_fast(5.0)], 1: [too_fast(5.0)]}
    told: list[float] = []
    await collect(timed(quick, range(2), on_retry=lambda error, attempt, delay: told.append(delay)))
    assert told == [5.0, 5.0]
    assert log_lines("WARNING") == ["map: RateLimitError, at most 4 at once, the next in 5.00 s"]


async def test_pauses_end_with_the_map(quick: Asked) -> None:
    """A pause that is left when the last answer is delivered is not slept to its end."""
    quick.fails = {0: [too_fast(3600.0)]}
    assert len(await collect(Map(quick, [0]))) == 1
    assert others() == set()


# --- ends -------------------------------------------------------------------------------------------------------------


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
