"""The file of questions."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.questions import NumberedQuestion, Questions
from ctxcache.cli.batch.shards import Shard

from ...hostile import Hostile
from ..conftest import Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_questions_are_read_one_by_one(files: Files) -> None:
    """Questions are read one by one: a bad line further down does not matter yet, and is an error in its place."""
    files.ask('"good"', "bad")
    with closing(Questions(str(files.questions))) as questions:
        first, second = questions
    assert isinstance(first, NumberedQuestion)
    assert (first.line, first.messages[0].content) == (1, "good")
    assert first == NumberedQuestion(1, first.messages, first.hash)
    assert isinstance(second, InvalidInputError)
    assert str(second).startswith(f"{files.questions}, line 2: not JSON")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"How long?", "not JSON: Expecting value (column 1)"),
        (b"\xff", "not UTF-8 text"),
        (b"5", 'a question must be a JSON string, or an object with "question"'),
        (b"{}", "a question must be a JSON string"),
        (b'{"question": "a", "messages": []}', "a question must be a JSON string"),
        (b'{"question": 5}', "question must be a string, or a list of parts, got 5"),
        (b'{"question": " "}', "the question is empty"),
        (b'{"messages": []}', "messages must be a list of at least one message, got []"),
        (b'{"messages": [{"role": 7, "content": "x"}]}', "non-empty string, got 7"),
        (b'{"question": "a", "id": [1]}', ": id must be a string or a number, got [1]"),
        (b'"\\ud800"', "the question cannot be encoded as UTF-8"),
        (b"1" * 5000, "not readable as JSON: "),
        (b'{"question": "a", "id": 1e999}', ": id must be a string or a number, got inf"),
        (b'{"question": "a", "temprature": 1}', 'unknown key "temprature"; did you mean "temperature"?'),
        (b'{"question": "a", "x\\ny": 1}', 'unknown key "x\\ny"; known keys: question, messages, id, temperature, '),
        (b'{"question": "a", "n": 2}', 'unknown key "n"; known keys: '),
        (b'{"question": "a", "temperature": 3}', "temperature must be a number in [0, 2], got 3"),
        (b'{"question": "a", "max_tokens": "many"}', "max_tokens must be a whole number from 1 up, got 'many'"),
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


def read_one(files: Files, line: str) -> NumberedQuestion:
    """The one question of a file."""
    files.ask(line)
    with closing(Questions(str(files.questions))) as questions:
        (question,) = questions
    assert isinstance(question, NumberedQuestion)
    return question


def test_options_of_a_question(files: Files) -> None:
    """A question may have sampling options, which are part of its hash; null is no option."""
    plain = read_one(files, '"one"')
    question = read_one(files, '{"question": "one", "temperature": 0.3, "stop": ["a", "b"], "top_p": null}')
    assert question.messages == plain.messages
    assert question.options == {"temperature": 0.3, "stop": ("a", "b")}
    assert question.hash != plain.hash
    assert read_one(files, '{"question": "one", "temperature": null}').hash == plain.hash


def test_hash_of_messages(files: Files) -> None:
    """The hash covers role, content and every further key of each message."""
    lines = (
        '{"messages": [{"role": "user", "content": "one"}]}',
        '{"messages": [{"role": "system", "content": "one"}]}',
        '{"messages": [{"role": "user", "content": "one", "name": "Ann"}]}',
        '{"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "one"}]}',
    )
    hashes = [read_one(files, line).hash for line in lines]
    assert len(set(hashes)) == 4
    assert hashes[0] == read_one(files, '"one"').hash


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ('"one"', {"question": "one"}),
        ('{"messages": [{"content": "one", "role": "user"}], "id": 1}', {"question": "one"}),
        (
            '{"messages": [{"role": "system", "content": "one"}]}',
            {"messages": [{"role": "system", "content": "one"}]},
        ),
        (
            '{"messages": [{"role": "user", "content": "one", "name": "Ann"}]}',
            {"messages": [{"role": "user", "content": "one", "name": "Ann"}]},
        ),
    ],
)
def test_content(files: Files, line: str, content: dict[str, Any]) -> None:
    """A question can be written down again, as text if there is nothing else to it."""
    assert read_one(files, line).content == content


def test_place(files: Files) -> None:
    """A question is named by line and id."""
    assert read_one(files, '"one"').place == "line 1"
    assert read_one(files, '{"question": "one", "id": "é"}').place == 'line 1 (id "é")'
    assert read_one(files, '{"question": "one", "id": 7}').place == "line 1 (id 7)"


def read_twice(questions: Questions) -> list[str]:
    """The texts of all questions, read twice with the same result."""
    with closing(questions):
        texts, again = (
            [question.messages[0].content for question in questions if isinstance(question, NumberedQuestion)]
            for _ in range(2)
        )
    assert texts == again
    return texts


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that are piped in can be read twice."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"one"\n"two"\n')))
    questions = Questions("-")
    assert (questions.name, questions.size) == ("stdin", 12)
    assert read_twice(questions) == ["one", "two"]


def test_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdin is reported as such."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidInputError, match="stdin: closed"):
        Questions("-")


def test_named_pipe(tmp_path: Path) -> None:
    """A pipe, as of `<(command)`, can be read twice."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"one\ntwo\n"))
    writer.start()
    assert read_twice(Questions(str(pipe), "text")) == ["one", "two"]
    writer.join(20)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_file_that_cannot_be_read() -> None:
    """A file that fails while it is read is an error, not the end of the questions."""
    unreadable = pytest.raises(InvalidInputError, match="/proc/self/mem: Input/output error")
    with closing(Questions("/proc/self/mem")) as questions, unreadable:
        list(questions)


def test_csv_file(files: Files) -> None:
    """A CSV file gives questions with ids and options."""
    files.ask("id,question,max_tokens", "a,Who?,5", "b,,")
    with closing(Questions(str(files.questions), "csv")) as questions:
        first, second = questions
    assert isinstance(first, NumberedQuestion)
    assert (first.line, first.id, first.options) == (2, "a", {"max_tokens": 5})
    assert isinstance(second, InvalidInputError)
    assert second.message == f"{files.questions}, line 3: the question is empty"


def test_shards(tmp_path: Path) -> None:
    """Each question is in one shard; those without an id are dealt in turn, whatever is between them."""
    lines = ['"1"', "", '{"question": "a", "id": "a"}', '"2"', "", "", '{"question": "b", "id": 2}', '"3"']
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(lines))
    found: dict[int, list[int]] = {}
    for index in range(2):
        with closing(Questions(str(file), shard=Shard(index, 2))) as questions:
            for question in questions:
                assert isinstance(question, NumberedQuestion)
                if questions.has(question):
                    found.setdefault(question.line, []).append(index)
    assert [found[line] for line in (1, 4, 8)] == [[0], [1], [0]]
    assert {len(shards) for shards in found.values()} == {1}
    assert sorted(found) == [1, 3, 4, 7, 8]
