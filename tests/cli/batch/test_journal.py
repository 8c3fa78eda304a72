"""The file of answers: whole lines, one writer, the same questions."""

import fcntl
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import ChatCompletion, Usage
from ctxcache.cli.batch.journal import Journal
from ctxcache.cli.batch.questions import read_questions
from ctxcache.models import AssistantMessage, Choice

from ...hostile import COMPLETION, CONTEXT, Hostile, answer
from ..conftest import Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def completion(text: str) -> ChatCompletion:
    """An answer."""
    choice = Choice(message=AssistantMessage(content=text), finish_reason="stop")
    return ChatCompletion(choices=(choice,), usage=Usage(prompt_tokens=1), request_id="req-1")


def open_journal(files: Files) -> Journal:
    """Open the answers, and check them against the questions."""
    journal = Journal(str(files.out), most_lines=100)
    journal.check(lambda: read_questions(str(files.questions)))
    return journal


def test_torn_anywhere(files: Files) -> None:
    """Wherever the file is cut, the torn line is dropped and every whole line is kept."""
    items = list(read_questions(str(files.questions)))
    journal = open_journal(files)
    for item in items:
        journal.write(item, completion("naïve\n"))
    journal.close()
    whole = files.out.read_bytes()
    for cut in range(len(whole) + 1):
        files.out.write_bytes(whole[:cut])
        journal = open_journal(files)
        lines = whole[:cut].count(b"\n")
        assert journal.count == lines
        assert [item.line in journal for item in items] == [number < lines for number in range(3)]
        for item in items[lines:]:
            journal.write(item, completion("naïve\n"))
        journal.close()
        assert files.out.read_bytes() == whole


def test_answers_that_are_hard_to_write(peer: Hostile, run: Run, files: Files) -> None:
    """Any text in an answer is kept in one line, readable, and unchanged after reading."""
    text = "naïve 漢字 \u2028 \x00 \n"
    choice = {**COMPLETION["choices"][0], "message": {"content": text}}  # type: ignore[index]
    files.ask('{"question": "one", "id": "\\ud83d"}')
    peer.plays([answer(CONTEXT)], [answer({**COMPLETION, "choices": [choice]})])
    assert run(*files.argv).code == 0
    data = files.out.read_bytes()
    assert data.count(b"\n") == 1
    assert "漢字".encode() in data
    fields = json.loads(data)
    assert (fields["answer"], fields["id"], fields["usage"]) == (text, "\ud83d", None)


def test_one_process_a_file(peer: Hostile, run: Run, files: Files) -> None:
    """While one process writes the answers, a second is refused before anything is sent."""
    with files.out.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = run(*files.argv)
    assert (refused.code, refused.err) == (2, f"ctxcache: {files.out}: another process writes to it\n")
    assert peer.posts == []


@pytest.mark.parametrize(
    "changed",
    [
        ['"one"', "", '{"question": "two!"}', '"three"'],
        ['{"question": "two"}', "", '"one"', '"three"'],
        ['"one"', '{"question": "two"}', '"three"'],
        ['"one"'],
    ],
)
def test_changed_questions(service: Any, run: Run, files: Files, changed: list[str]) -> None:
    """Changed or removed questions that have answers are refused, and the file stays as it was."""
    run(*files.argv)
    before = files.out.read_bytes() + b'{"line": 4, "torn'
    files.out.write_bytes(before)
    files.ask(*changed)
    refused = run(*files.argv)
    assert refused.code == 2
    assert refused.err.startswith(f"ctxcache: {files.out}: ")
    assert "was written for different questions" in refused.err
    assert files.out.read_bytes() == before


@pytest.mark.parametrize("same", ['"two"', '{"messages": [{"content": "two", "role": "user"}], "note": 1}'])
def test_the_same_question_in_other_words(service: Any, run: Run, files: Files, same: str) -> None:
    """The notation of a question does not matter, nor do fields that are not sent."""
    run(*files.argv)
    files.ask('"one"', " ", same, '"three"')
    assert run(*files.argv).code == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"# a manual\n", "line 1 is not an answer that `ctxcache map` wrote"),
        (b"# a manual", "line 1 is not an answer that `ctxcache map` wrote"),
        (b"[1]\n", "line 1 is not an answer"),
        (b'{"line": 0, "question_hash": "x"}\n', "line 1 is not an answer"),
        (b'{"line": true, "question_hash": "x"}\n', "line 1 is not an answer"),
        (b'{"line": 1, "question_hash": 5}\n', "line 1 is not an answer"),
        (b"[" * 100_000 + b"\n", "line 1 is not an answer"),
        (b'{"line": 1, "question_hash": "x"}\n' * 2, "line 2 answers the question of line 1 a second time"),
        (b'{"line": 9999999999999, "question_hash": "x"}\n', "the question of line 9999999999999 which does not exist"),
    ],
)
def test_a_file_of_something_else(peer: Hostile, run: Run, files: Files, content: bytes, told: str) -> None:
    """A file with anything but answers is refused, and stays as it was."""
    files.out.write_bytes(content)
    refused = run(*files.argv)
    assert refused.code == 2
    assert told in refused.err
    assert files.out.read_bytes() == content
    assert peer.posts == []


def test_no_room_for_the_answers(service: Any, run: Run, files: Files) -> None:
    """A file that cannot grow ends the command with exit code 1, and holds whole lines only."""
    files.ask_many(60)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        limited = run(*files.argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (limited.code, limited.err) == (1, f"ctxcache: {files.out}: File too large\n")
    assert 0 < len(files.answers()) < 60
    assert run(*files.argv).code == 0
    assert [one["line"] for one in files.answers()] == list(range(1, 61))


def test_without_locks(service: Any, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without file locks is no obstacle."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert run(*files.argv).code == 0
