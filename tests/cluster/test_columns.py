"""The forms of a batch."""

from typing import Any

import pytest

from ctxcache import Answer, ChatCompletion, Choice, InvalidInputError, Message, PromptTokensDetails, Usage
from ctxcache.cluster.columns import OUTPUTS, add_answers, read_questions
from ctxcache.errors import RateLimitError
from ctxcache.models import AssistantMessage

USAGE = Usage(
    prompt_tokens=9, completion_tokens=2, total_tokens=11, prompt_tokens_details=PromptTokensDetails(cached_tokens=7)
)


def answered(index: int, usage: Usage | None = USAGE) -> Answer[Any]:
    """An answer to the question at a place."""
    message = AssistantMessage(role="assistant", content=f"answer {index}")
    choice = Choice(index=0, message=message, finish_reason="stop")
    completion = ChatCompletion(
        id="c", object="chat.completion", created=1, model="m", choices=(choice,), usage=usage, request_id=f"r{index}"
    )
    return Answer(index, "?", completion)


def failed(index: int) -> Answer[Any]:
    """A failure of the question at a place."""
    error = RateLimitError("too fast", status=429)
    error.request_id = f"r{index}"
    return Answer(index, "?", error=error)


ANSWERS = [answered(0), failed(1)]
ADDED = {
    "text": ["answer 0", None],
    "error": [None, f"RateLimitError: {ANSWERS[1].error}"],
    "finish_reason": ["stop", None],
    "request_id": ["r0", "r1"],
    "prompt_tokens": [9, None],
    "completion_tokens": [2, None],
    "cached_tokens": [7, None],
}


def test_columns_as_lists() -> None:
    """A mapping of lists stays one; the batch that was given does not change."""
    given = {"question": ["a", "b"], "id": [1, 2]}
    batch, questions = read_questions(given, "question", "")
    assert questions == ["a", "b"]
    assert add_answers(batch, ANSWERS, "") == {**given, **ADDED}
    assert set(given) == {"question", "id"}
    assert set(ADDED) == set(OUTPUTS)


def test_no_usage() -> None:
    """An answer without usage has no tokens, and is an answer."""
    result = add_answers({"question": ["a"]}, [answered(0, None)], "")
    assert (result["text"], result["error"], result["prompt_tokens"]) == (["answer 0"], [None], [None])


def test_columns_as_arrays() -> None:
    """Strings and lists of messages in numpy arrays become Python objects; other columns stay as they are."""
    numpy = pytest.importorskip("numpy")
    messages = numpy.empty(2, dtype=object)
    messages[0] = numpy.array([{"role": "user", "content": "a"}], dtype=object)
    messages[1] = "b"
    given = {"question": messages, "id": numpy.array([1, 2])}
    batch, questions = read_questions(given, "question", "")
    assert questions == [[{"role": "user", "content": "a"}], "b"]
    assert add_answers(batch, ANSWERS, "")["id"] is given["id"]
    _, questions = read_questions({"question": numpy.array(["a", "b"])}, "question", "")
    assert [type(question) for question in questions] == [str, str]
    _, questions = read_questions({"question": [numpy.str_("a")]}, "question", "")
    assert type(questions[0]) is str


def test_a_data_frame() -> None:
    """A pandas DataFrame keeps its index, and has the same types whether questions failed or not."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"question": ["a", "b"]}, index=[7, 5])
    batch, questions = read_questions(frame, "question", "")
    assert questions == ["a", "b"]
    result = add_answers(batch, ANSWERS, "")
    assert list(result.index) == [7, 5]
    assert result["prompt_tokens"].isna().tolist() == [False, True]
    assert result["error"].isna().tolist() == [True, False]
    assert result["cached_tokens"].sum() == 7
    empty = add_answers(frame.head(0), [], "")
    assert (empty.dtypes == result.dtypes).all()
    assert list(frame.columns) == ["question"]


def test_a_table() -> None:
    """A pyarrow Table stays one, and has the same types whether questions failed or not."""
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"question": ["a", "b"]})
    batch, questions = read_questions(table, "question", "")
    assert questions == ["a", "b"]
    result = add_answers(batch, ANSWERS, "")
    assert result.to_pydict() == {"question": ["a", "b"], **ADDED}
    empty = add_answers(table.slice(0, 0), [], "")
    assert empty.schema == result.schema


def test_rows() -> None:
    """Rows are mappings, or questions alone, which become mappings; an iterator is read once."""
    batch, questions = read_questions(iter([{"question": "a", "id": 1}, "b"]), "question", "")
    assert questions == ["a", "b"]
    result = add_answers(batch, ANSWERS, "")
    assert result[0] == {"question": "a", "id": 1, **{name: values[0] for name, values in ADDED.items()}}
    assert result[1] == {"question": "b", **{name: values[1] for name, values in ADDED.items()}}


def test_rows_of_messages() -> None:
    """A row may be a message of this package."""
    _, questions = read_questions([Message("user", "a")], "question", "")
    assert questions == [Message("user", "a")]


def test_a_prefix() -> None:
    """All columns added have the prefix, in each form."""
    assert set(add_answers({"q": ["a", "b"]}, ANSWERS, "x_")) == {"q", *(f"x_{name}" for name in OUTPUTS)}
    assert set(add_answers([{"q": "a"}, {"q": "b"}], ANSWERS, "x_")[0]) == {"q", *(f"x_{name}" for name in OUTPUTS)}


@pytest.mark.parametrize("batch", ["a", b"a", 5, None])
def test_other_forms_are_refused(batch: object) -> None:
    """The error names the forms."""
    with pytest.raises(InvalidInputError, match="batch must be a mapping of columns, a DataFrame, a Table"):
        read_questions(batch, "question", "")


@pytest.mark.parametrize("batch", [{"text": ["a"]}, [{"text": "a"}], [{"question": "a"}, {"other": "b"}]])
def test_a_batch_without_questions(batch: object) -> None:
    """The error names the column that is wanted and those there."""
    with pytest.raises(InvalidInputError, match="batch must be a batch with a column 'question'"):
        read_questions(batch, "question", "")


@pytest.mark.parametrize("batch", [{"question": ["a"], "error": [1]}, [{"question": "a", "error": 1}]])
def test_columns_are_not_overwritten(batch: object) -> None:
    """A column that has the name of an added one is refused, unless a prefix tells them apart."""
    with pytest.raises(InvalidInputError, match=r"without a column 'error' \(see `output_prefix`\)"):
        read_questions(batch, "question", "")
    read_questions(batch, "question", "answer_")


@pytest.mark.parametrize("column", ["How?", b"How?", {"role": "user", "content": "How?"}, None, 5])
def test_a_column_is_a_list(column: object) -> None:
    """A single question in place of a column is refused: not cut into letters or keys, each of them paid for."""
    with pytest.raises(InvalidInputError, match="batch must be a batch whose column of questions is a list"):
        read_questions({"question": column}, "question", "")
