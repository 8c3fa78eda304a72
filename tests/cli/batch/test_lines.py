"""The lines of a file of answers."""

import io
import json
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.answered import Answered
from ctxcache.cli.batch.lines import AnswerLine, encode, is_torn, read_answers
from ctxcache.cli.batch.settings import Settings
from ctxcache.config import UNSET

SETTINGS = Settings.of("m", "manual", {})


def answer(line: int, **fields: Any) -> bytes:
    """A line."""
    return encode({"line": line, "question_hash": f"h{line}", **SETTINGS.fields(), **fields})


def read(data: bytes, answered: Answered | None = None) -> list[AnswerLine]:
    """The answers in a file of some content."""
    answered = Answered() if answered is None else answered
    return list(read_answers(io.BytesIO(data), "a.jsonl", answered, SETTINGS, 9))


def test_places() -> None:
    """Each answer has its question and the offsets of the line; the questions are noted."""
    answered = Answered()
    one, two = answer(1), answer(2, id="é", answer="x\n")
    lines = read(one + two, answered)
    assert [(line.line, line.id) for line in lines] == [(1, UNSET), (2, "é")]
    assert [(line.start, line.end) for line in lines] == [(0, len(one)), (len(one), len(one + two))]
    assert [line.fields for line in lines] == [json.loads(one), json.loads(two)]
    assert answered.count == 2
    assert read(b"") == []


@pytest.mark.parametrize("zeros", [0, 1, 5000])
def test_torn_anywhere(zeros: int) -> None:
    """Wherever the last line is cut, with zeros after the cut or not, reading ends before."""
    one, two = answer(1), answer(2)
    for cut in range(len(two)):
        assert [line.line for line in read(one + two[:cut] + bytes(zeros))] == [1]
        assert is_torn(two[:cut] + bytes(zeros))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"# notes", "line 2 is not an answer that `ctxcache map` wrote"),
        (b"# notes\n", "line 2 is not an answer"),
        (b"[1]\n", "line 2 is not an answer"),
        (b"[" * 100_000 + b"\n", "line 2 is not an answer"),
        (encode({"line": 0, "question_hash": "x"}), "line 2 is not an answer"),
        (encode({"line": True, "question_hash": "x"}), "line 2 is not an answer"),
        (encode({"line": 2, "question_hash": 5}), "line 2 is not an answer"),
        (encode({"line": 2, "question_hash": "é"}), "line 2 is not an answer"),
        (answer(2, id=[1]), "line 2 is not an answer"),
        (b'{"line": 2, "quest\0\0\0\n', "line 2 is damaged (zero bytes, as after a power cut)"),
        (answer(1), "line 2 answers the question of line 1 a second time"),
        (answer(10), "line 2 answers the question of line 10, which does not exist: was it removed?"),
        (answer(10, id="a") + answer(11, id="a"), 'line 3 answers the question with id "a" a second time'),
    ],
)
def test_no_answer(data: bytes, told: str) -> None:
    """Anything but answers to known questions is refused, with the line."""
    with pytest.raises(InvalidInputError) as refused:
        read(answer(1) + data)
    assert str(refused.value).startswith(f"a.jsonl: {told}")


def test_other_settings() -> None:
    """Answers with other settings are refused, once the file proved to hold answers only."""
    other = answer(2, model="n")
    with pytest.raises(InvalidInputError, match=r'a\.jsonl: was written for a different model \("n"\): undo'):
        read(answer(1) + other + answer(3))
    with pytest.raises(InvalidInputError, match="line 3 is not an answer"):
        read(answer(1) + other + b"{}\n")


def test_any_text() -> None:
    """An answer is one line of UTF-8, whatever the text: a lone surrogate is escaped."""
    data = encode({"answer": "漢字 \ud83d\n"})
    assert ("漢字".encode() in data, data.count(b"\n")) == (True, 1)
    assert json.loads(data) == {"answer": "漢字 \ud83d\n"}
