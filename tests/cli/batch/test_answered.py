"""Which questions have an answer."""

import pytest

from ctxcache.cli.batch.answered import Answered
from ctxcache.cli.batch.questions import Id, NumberedQuestion
from ctxcache.config import UNSET, Unset


def question(line: int, hash_: str = "h", id_: Id | Unset = UNSET) -> NumberedQuestion:
    """A question."""
    return NumberedQuestion(line, (), hash_, id_)


def test_by_line() -> None:
    """A question without an id is known by its line."""
    answered = Answered()
    assert answered.add(3, UNSET, "h")
    assert answered.count == 1
    assert [question(line) in answered for line in (1, 3, 99)] == [False, True, False]
    assert answered.is_unchanged(question(3))
    assert not answered.is_unchanged(question(3, "other"))


@pytest.mark.parametrize("id_", ["a", 7, 7.5])
def test_by_id(id_: Id) -> None:
    """A question with an id is known by it, on whatever line."""
    answered = Answered()
    assert answered.add(3, id_, "h")
    assert question(8, "h", id_) in answered
    assert answered.is_unchanged(question(8, "h", id_))
    assert not answered.is_unchanged(question(8, "other", id_))
    assert question(3, "h", "b") not in answered
    assert question(3, "h") not in answered


def test_id_given_later() -> None:
    """A question that got its id after the answer is found by its line."""
    answered = Answered()
    answered.add(3, UNSET, "h")
    assert answered.is_unchanged(question(3, "h", "a"))
    assert question(4, "h", "a") not in answered


def test_once() -> None:
    """No line and no id is added twice; a number and a text are different ids."""
    answered = Answered()
    assert answered.add(1, UNSET, "h")
    assert not answered.add(1, UNSET, "i")
    assert answered.add(1, 7, "h")
    assert answered.add(1, "7", "h")
    assert not answered.add(2, 7, "i")
    assert answered.count == 3
    assert answered.is_unchanged(question(1, "h"))
