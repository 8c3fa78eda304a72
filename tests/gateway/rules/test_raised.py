"""Errors of every class, raised by an engine, as the client of this package raises them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import AsyncSession, StreamInterruptedError, errors, user
from ctxcache.errors import APIStatusError, RateLimitError
from ctxcache.gateway import Gateway, Prompt
from ctxcache.gateway.rules import raised, refusals

MODEL = "Doubao-1.5-pro-32k"
KINDS = [
    (errors.BadRequestError, 400),
    (errors.AuthenticationError, 401),
    (errors.PermissionDeniedError, 403),
    (errors.ContextBusyError, 403),
    (errors.NotFoundError, 404),
    (errors.ContextGoneError, 404),
    (errors.RateLimitError, 429),
    (errors.QuotaExceededError, 429),
    (errors.InternalServerError, 500),
]


class Raising:
    """An engine that writes a word, if told to, and raises."""

    def __init__(self) -> None:
        self.words = 0
        self.error: Exception = ValueError()

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write."""
        for _ in range(self.words):
            yield "word"
        raise self.error


@pytest.fixture
def engine() -> Raising:
    """The engine."""
    return Raising()


@pytest.fixture
async def ask(engine: Raising) -> AsyncIterator[Any]:
    """Ask on a new context; return the error raised."""
    async with (
        Gateway(engine=engine) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url, retry=0) as session,
    ):

        async def error_of(*, stream: bool = False) -> APIStatusError:
            context = await session.context.create(model=MODEL, messages=[user("x")])
            with pytest.raises(APIStatusError) as found:
                answer = await session.chat.create(
                    context_id=context.id, model=MODEL, messages=[user("x")], stream=stream
                )
                if stream:
                    await answer.finish()
            return found.value

        yield error_of


@pytest.mark.parametrize("words", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "status"), KINDS)
async def test_an_error_arrives_as_raised(
    ask: Any, engine: Raising, kind: type[APIStatusError], status: int, stream: bool, words: int
) -> None:
    """The class alone says status and code; a status, a code, a parameter and a pause that were given arrive as given.

    So in a plain answer, before the first chunk and after it.
    """
    engine.words = words
    engine.error = kind("the context is not found, or so")
    bare = await ask(stream=stream)
    assert (type(bare), bare.status, bare.retry_after) == (kind, status, None)
    other = 503 if status >= 429 else 422 if status == 400 else status
    engine.error = kind("slow", status=other, param="p", type="Kind", retry_after=7.5)
    given = await ask(stream=stream)
    assert (type(given), given.status, given.retry_after, given.param, given.type) == (kind, other, 7.5, "p", "Kind")
    assert "slow" in given.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pause_of_whole_seconds(ask: Any, engine: Raising, stream: bool) -> None:
    """`retry_after` arrives, with a status that was given, in a plain error and in an event."""
    engine.words = 1
    engine.error = RateLimitError("slow", status=429, retry_after=7)
    error = await ask(stream=stream)
    assert (type(error), error.status, error.retry_after) == (RateLimitError, 429, 7)


async def test_a_code_of_ones_own(ask: Any, engine: Raising) -> None:
    """A code that was given stays; the status then says the class."""
    engine.error = RateLimitError("slow", code="Mine")
    error = await ask()
    assert (type(error), error.status, error.code) == (RateLimitError, 429, "Mine")


async def test_a_stream_error_has_the_answer_so_far(ask: Any, engine: Raising) -> None:
    """An error after the first chunk holds the partial answer, and is no other error than the one raised."""
    engine.words = 2
    engine.error = RateLimitError("slow", retry_after=1)
    error = await ask(stream=True)
    assert not isinstance(error, StreamInterruptedError)
    assert error.partial.text == "wordword"


@pytest.mark.parametrize("status", [200, 302, 0, 999])
def test_no_status_of_success(status: int) -> None:
    """A status that is none of an error is replaced by that of the class."""
    assert raised.status_of(RateLimitError("x", status=status)) == 429


def test_a_class_of_ones_own() -> None:
    """A subclass has the status and the code of the class above."""

    class OwnError(RateLimitError):
        pass

    assert (raised.status_of(OwnError("x")), raised.code_of(OwnError("x"))) == (429, "RateLimitExceeded")
    assert (raised.status_of(APIStatusError("x")), raised.code_of(APIStatusError("x"))) == (500, "")


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (None, {}),
        (0, {"Retry-After": "0"}),
        (7, {"Retry-After": "7"}),
        (0.25, {"Retry-After": "1", "Retry-After-Ms": "250"}),
        (-1, {}),
        (float("inf"), {}),
        (float("nan"), {}),
    ],
)
def test_pauses_are_never_shortened(seconds: Any, headers: dict[str, str]) -> None:
    """Whole seconds are rounded up; a pause that nobody can wait is not sent."""
    assert raised.pause_headers(RateLimitError("x", retry_after=seconds)) == headers


def test_a_message_that_json_cannot_carry() -> None:
    """A lone surrogate in a message is replaced."""
    assert "a?b" in refusals.envelope(RateLimitError("a\ud800b"), "id")["error"]["message"]
