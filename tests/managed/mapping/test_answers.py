"""`answers`: results, and the order in which they are delivered."""

import json
from pathlib import Path

import pytest

from ctxcache import BadRequestError, RateLimitError, Usage, user
from ctxcache.managed.mapping import Answer
from ctxcache.managed.mapping.answers import Answers

from .asking import completion

pytestmark = pytest.mark.usefixtures("quiet_loop")


async def test_contents_do_not_show() -> None:
    """The repr of an answer has neither the question nor the text."""
    assert repr(Answer(3, "secret", completion("hidden"))) == "Answer(index=3, error=None)"


def test_as_they_came() -> None:
    """Unordered, the first to come is the first to leave."""
    answers: Answers[str] = Answers(ordered=False)
    for index in (2, 0):
        answers.put(Answer(index, "?"))
    assert [answer and answer.index for answer in (answers.take(), answers.take(), answers.take())] == [2, 0, None]


def test_in_the_order_of_the_questions() -> None:
    """Ordered, an answer waits for those before it."""
    answers: Answers[str] = Answers(ordered=True)
    answers.put(Answer(1, "b"))
    assert answers.take() is None
    answers.put(Answer(0, "a"))
    assert [answer and answer.index for answer in (answers.take(), answers.take())] == [0, 1]


def test_an_answer_or_an_error() -> None:
    """`text` and `usage` of what was answered; the error of what was not."""
    good = Answer(0, "?", completion("yes"))
    assert (good.ok, good.text, good.usage) == (True, "yes", Usage(prompt_tokens=1))
    bad: Answer[str] = Answer(1, "?", error=BadRequestError("no"))
    assert (bad.ok, bad.usage) == (False, None)
    with pytest.raises(BadRequestError):
        _ = bad.text
    assert Answer(2, "?").text == ""


def test_results_as_json():
    """Answers and errors are written as JSON, with the question; of completion and error one is None."""
    good = json.loads(Answer(0, [user("Where?")], completion("here")).to_json())
    assert (good["index"], good["question"], good["error"]) == (0, [{"role": "user", "content": "Where?"}], None)
    assert good["completion"]["choices"][0]["message"]["content"] == "here"
    bad = Answer(1, "Why?", error=RateLimitError("slow", status=429, code="Limit")).to_dict()
    error = {"message": "slow", "type": "RateLimitError", "code": "Limit"}
    assert bad == {"index": 1, "question": "Why?", "completion": None, "error": error}
    assert json.loads(Answer(2, Path("a"), completion("b")).to_json())["question"] == "a"
