"""The file of questions."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.questions import NumberedQuestion, read_questions

from ...hostile import Hostile
from ..conftest import Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_questions_are_read_one_by_one(files: Files) -> None:
    """Questions are read one by one: a bad line further down does not matter yet."""
    files.ask('"good"', "bad")
    items = read_questions(str(files.questions))
    first = next(items)
    assert (first.line, first.messages[0].content) == (1, "good")
    assert first == NumberedQuestion(1, first.messages, first.hash)
    with pytest.raises(InvalidInputError, match=r"q\.jsonl, line 2: not JSON"):
        next(items)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"How long?", "not JSON: Expecting value (column 1)"),
        (b"\xff", "not UTF-8 text"),
        (b"5", 'a question must be a JSON string, or an object with "question"'),
        (b"{}", "a question must be a JSON string"),
        (b'{"question": "a", "messages": []}', "a question must be a JSON string"),
        (b'{"question": 5}', "content must be a string, got 5"),
        (b'{"question": " "}', "the question is empty"),
        (b'{"messages": []}', "messages must be a list of at least one message, got []"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "'assistant', got 'robot'"),
        (b'{"question": "a", "id": [1]}', ": id must be a string or a number, got [1]"),
        (b'"\\ud800"', "the question cannot be encoded as UTF-8"),
        (b"1" * 5000, "not readable as JSON: "),
    ],
)
def test_bad_questions(peer: Hostile, run: Run, files: Files, line: bytes, told: str) -> None:
    """A bad line is named before anything is sent, however far down."""
    files.questions.write_bytes(b'\xef\xbb\xbf"good"\n' + b'"good"\n' * 99 + b"\n" + line)
    refused = run(*files.argv)
    assert refused.code == 2
    assert refused.err.startswith(f"ctxcache: {files.questions}, line 102: ")
    assert told in refused.err
    assert refused.err.count("\n") == 1
    assert peer.posts == []
