"""The scripted engine."""

from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.gateway import Engine, Prompt, ScriptedEngine, count_tokens
from ctxcache.models import ChatRequest, system, user


class Time:
    """Time that passes by sleeping only."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 100.0
        self.late = late
        self.naps: list[float] = []

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let time pass, by `late` more than asked for."""
        self.naps.append(round(seconds, 6))
        self.now += seconds + self.late


def prompt(text: str = "hello", index: int = 0, context: int = 1) -> Prompt:
    """Make a prompt."""
    question = (user(text),)
    return Prompt(
        request=ChatRequest(context_id="c", model="m", messages=question),
        context=(system("Be kind."),) * context,
        context_tokens=2 * context,
        question=question,
        index=index,
    )


async def pieces(engine: Engine, prompt: Prompt) -> list[str]:
    """Let an engine answer a prompt."""
    return [piece async for piece in engine.generate(prompt)]


async def test_it_says_what_it_is_and_what_it_was_told() -> None:
    """An answer says that no language model wrote it, and repeats the size of the context and the question."""
    assert "".join(await pieces(ScriptedEngine(), prompt())) == (
        "This is a scripted answer, not a language model. The context holds 1 message (2 tokens); you said: hello"
    )
    assert "holds 2 messages (4 tokens)" in "".join(await pieces(ScriptedEngine(), prompt(context=2)))


async def test_the_same_prompt_gives_the_same_answer() -> None:
    """Answers are deterministic; the replies of one answer differ by a number."""
    engine = ScriptedEngine()
    assert await pieces(engine, prompt()) == await pieces(engine, prompt())
    assert "".join(await pieces(engine, prompt(index=2))).startswith("[3] This is a scripted answer")


async def test_it_writes_word_by_word() -> None:
    """A piece is a word of up to 8 characters and the space before, in any language."""
    written = await pieces(ScriptedEngine(), prompt("你好世界你好世界你好  \n"))
    assert written[:4] == ["This", " is", " a", " scripted"]
    assert written[-3:] == [" 你好世界你好世界", "你好", "  \n"]


async def test_a_long_question_is_repeated_in_part() -> None:
    """An answer shows 200 characters of the question."""
    assert "".join(await pieces(ScriptedEngine(), prompt("x" * 200))).endswith(f"said: {'x' * 200}")
    assert "".join(await pieces(ScriptedEngine(), prompt("x" * 1000))).endswith(f"said: {'x' * 200}…")


@pytest.mark.parametrize("length", [0, 1, 5.0, 1000])
async def test_its_length_can_be_set(length: Any) -> None:
    """`length` is the number of pieces; a longer answer counts on."""
    written = await pieces(ScriptedEngine(length=length), prompt())
    assert len(written) == length
    if length == 1000:
        assert "".join(written).startswith("This is a scripted answer, not a language model. The context holds")
        assert "".join(written[-100:]).count(" five six") == 10
        assert all(count_tokens(piece) for piece in written)


async def test_speed_and_first_delay_can_be_set() -> None:
    """The first piece comes after `first_token_delay`, every further piece 1 / `pieces_per_second` later."""
    time = Time()
    engine = ScriptedEngine(pieces_per_second=10, length=4, first_token_delay=1.5, clock=time.clock, sleep=time.sleep)
    await pieces(engine, prompt())
    assert time.naps == [1.5, 0.1, 0.1, 0.1]


async def test_a_late_wake_up_does_not_slow_it_down() -> None:
    """The speed is kept on average: after oversleeping there is no sleep until the reply has caught up."""
    time = Time(late=0.25)
    engine = ScriptedEngine(pieces_per_second=10, length=5, clock=time.clock, sleep=time.sleep)
    await pieces(engine, prompt())
    assert time.naps == [0.1, 0.05]


@pytest.mark.parametrize("fast", [None, 0, 0.0])
async def test_as_fast_as_possible_never_sleeps(fast: Any) -> None:
    """Without a speed, a reply is written at once."""
    time = Time()
    await pieces(ScriptedEngine(pieces_per_second=fast, length=100, sleep=time.sleep), prompt())
    assert time.naps == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"pieces_per_second": -1},
        {"pieces_per_second": float("nan")},
        {"pieces_per_second": float("inf")},
        {"pieces_per_second": "10"},
        {"pieces_per_second": True},
        {"length": -1},
        {"length": 1.5},
        {"first_token_delay": None},
        {"first_token_delay": -0.1},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A number out of range is refused under the name of the field."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        ScriptedEngine(**wrong)
