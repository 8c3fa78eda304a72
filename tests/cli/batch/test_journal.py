"""The file of answers: whole lines, one writer, the same questions."""

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from ctxcache import ChatCompletion, Context, InvalidInputError, Usage
from ctxcache.cli.batch.journal import FileJournal, StreamJournal, WriteError
from ctxcache.cli.batch.questions import NumberedQuestion, Questions
from ctxcache.cli.batch.settings import Settings
from ctxcache.cli.terminal import Terminal
from ctxcache.models import AssistantMessage, Choice

from ...hostile import COMPLETION, CONTEXT, Hostile, answer
from ..conftest import Files

Run = Callable[..., Any]
SETTINGS = Settings.of("m", "# Manual\n", {"temperature": 0.5})
Spawn = Callable[..., "subprocess.Popen[str]"]


def completion(text: str) -> ChatCompletion:
    """An answer."""
    choice = Choice(message=AssistantMessage(content=text), finish_reason="stop")
    return ChatCompletion(choices=(choice,), usage=Usage(prompt_tokens=1), request_id="req-1")


def questions_in(files: Files) -> list[NumberedQuestion]:
    """The questions, all of which must be good."""
    with closing(Questions(str(files.questions))) as questions:
        return [question for question in questions if isinstance(question, NumberedQuestion)]


def open_journal(files: Files, settings: Settings = SETTINGS, **options: Any) -> FileJournal:
    """Open the answers, and cut off a torn line."""
    journal = FileJournal(str(files.out), settings, most_lines=100, **options)
    journal.begin()
    return journal


def write_all(files: Files, **options: Any) -> bytes:
    """Answer all questions; return the content of the file."""
    with closing(open_journal(files, **options)) as journal:
        for question in questions_in(files):
            journal.write(question, completion("naïve\n"), "ctx-1", 1000.0)
    return files.out.read_bytes()


@pytest.mark.parametrize("zeros", [0, 1, 5000])
def test_torn_anywhere(files: Files, zeros: int) -> None:
    """Wherever the file is cut, with zeros after the cut or not, the torn line is dropped and every whole line kept."""
    questions = questions_in(files)
    whole = write_all(files)
    for cut in range(len(whole) + 1):
        files.out.write_bytes(whole[:cut] + bytes(zeros))
        journal = open_journal(files)
        lines = whole[:cut].count(b"\n")
        assert journal.answered.count == lines
        assert [question in journal.answered for question in questions] == [number < lines for number in range(3)]
        for question in questions[lines:]:
            journal.write(question, completion("naïve\n"), "ctx-1", 1000.0)
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


@pytest.mark.parametrize(
    "same",
    [
        '{"id": "q-2", "question": "two"}',
        '{"id": "q-2", "messages": [{"content": "two", "role": "user"}], "temperature": null}',
    ],
)
def test_the_same_question_in_other_words(service: Any, run: Run, files: Files, same: str) -> None:
    """The notation of a question does not matter, nor do fields that are not sent."""
    run(*files.argv)
    files.ask('{"question": "one"}', " ", same, '{"id": 3, "question": "three"}')
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
        (
            b'{"line": 9999999999999, "question_hash": "x"}\n',
            "the question of line 9999999999999, which does not exist",
        ),
        (b'{"line": 1, "question_hash": "\\ud800"}\n', "line 1 is not an answer"),
        (b'{"line": 1, "id": [1], "question_hash": "x"}\n', "line 1 is not an answer"),
        (b'{"line": 1, "id": 7, "question_hash": "x"}\n' * 2, "line 2 answers the question with id 7 a second time"),
        (b'{"line": 1, "question_hash": "x"\0\0\0}\n', "line 1 is damaged (zero bytes, as after a power cut)"),
        (b'\0\0: 1, "question_hash": "x"}\n', "line 1 is damaged (zero bytes, as after a power cut)"),
        (b'{"line": 1, "question_hash": "x"}\n', "was written for a different prefix: undo the change, give"),
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


def test_no_room_for_the_answers(files: Files) -> None:
    """An answer that does not fit on the disk leaves no trace, and the whole lines before it stay."""
    files.ask_many(3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(open_journal(files)) as journal:
        one, two, three = questions_in(files)
        journal.write(one, completion("Yes"), "ctx-1", 1000.0)
        whole = files.out.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
        try:
            with pytest.raises(WriteError, match=r"answers\.jsonl: File too large"):
                journal.write(two, completion("Yes"), "ctx-1", 1000.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert files.out.read_bytes() == whole
        journal.write(three, completion("Yes"), "ctx-1", 1000.0)
    assert [answer["line"] for answer in files.answers()] == [1, 3]


def test_without_locks(service: Any, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without file locks is no obstacle."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert run(*files.argv).code == 0


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (Settings.of("m", "# Manual, 2nd edition\n", {"temperature": 0.5}), "a different prefix"),
        (Settings.of("n", "# Manual\n", {"temperature": 0.5}), 'a different model ("m")'),
        (Settings.of("m", "# Manual\n", {"temperature": 0.6}), 'different sampling options ({"temperature": 0.5})'),
        (Settings.of("m", "# Manual\n", {}), 'different sampling options ({"temperature": 0.5})'),
    ],
)
def test_other_settings(files: Files, settings: Settings, change: str) -> None:
    """Answers written for another prefix, model or sampling are refused, and the file stays as it was."""
    before = write_all(files) + b'{"line": 4, "torn'
    files.out.write_bytes(before)
    with pytest.raises(InvalidInputError) as refused:
        open_journal(files, settings)
    way_out = "undo the change, give another --out, or start over with --fresh"
    assert str(refused.value) == f"{files.out}: was written for {change}: {way_out}"
    assert files.out.read_bytes() == before
    open_journal(files).close()


def test_fresh_keeps_the_old_answers(files: Files) -> None:
    """A fresh file of answers leaves the old ones beside it, under the first free name."""
    old = write_all(files)
    files.out.with_name("answers.jsonl.1").write_text("taken")
    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100, fresh=True)) as journal:
        assert journal.answered.count == 0
        assert files.out.read_bytes() == old  # until the checks have passed
        assert journal.begin() == f"{files.out} is now {files.out}.2"
        assert Path(f"{files.out}.2").read_bytes() == old
        assert files.out.read_bytes() == b""
        with pytest.raises(InvalidInputError, match="another process writes to it"):
            open_journal(files)
    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100, fresh=True)) as journal:
        assert journal.begin() == ""  # nothing to keep


@pytest.mark.parametrize("content", ["# Manual\n", "x", '{"question": "one"}\n'])
def test_no_other_file_is_set_aside(files: Files, content: str) -> None:
    """A file that does not begin with an answer was named by mistake, and stays where it is."""
    files.out.write_text(content)
    with pytest.raises(InvalidInputError, match="line 1 is not an answer that `ctxcache map` wrote"):
        FileJournal(str(files.out), SETTINGS, most_lines=100, fresh=True)
    assert files.out.read_text() == content


def test_set_aside_between_open_and_lock(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that gets its lock on a file that was renamed meanwhile does not write there."""
    write_all(files)

    def rename_first(*_: object) -> None:
        files.out.rename(files.out.with_name("answers.jsonl.1"))
        files.out.touch()

    monkeypatch.setattr(fcntl, "flock", rename_first)
    with pytest.raises(InvalidInputError, match="another process writes to it"):
        open_journal(files)


def test_line_with_its_question(files: Files) -> None:
    """On request each line has its question: a user's text, or messages."""
    files.ask('"one"', '{"messages": [{"role": "system", "content": "Brief"}, {"role": "user", "content": "two"}]}')
    first, second = map(json.loads, write_all(files, with_questions=True).splitlines())
    assert first["question"] == "one"
    assert second["messages"] == [{"role": "system", "content": "Brief"}, {"role": "user", "content": "two"}]


def test_create_goes_with_the_next_answer(files: Files) -> None:
    """The first answer after a create has the create, so that the bill can be made from the file."""
    usage = Usage(prompt_tokens=7, total_tokens=7)
    with closing(open_journal(files)) as journal:
        journal.note_create(Context(id="ctx-1", ttl=3600, usage=usage), 999.5)
        for question in questions_in(files):
            journal.write(question, completion("Yes"), "ctx-1", 1000.0)
    first, *others = files.answers()
    (created,) = first["created"]
    assert (created["context_id"], created["time"], created["ttl"]) == ("ctx-1", 999, 3600)
    assert created["usage"]["prompt_tokens"] == 7
    assert all("created" not in one for one in others)
    with closing(open_journal(files)) as journal:
        assert journal.books.creates == 1
        assert journal.books.usage.prompt_tokens == 7 + 3


def test_stdout(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers for stdout are lines in ASCII, whatever the locale."""
    journal = StreamJournal(Terminal().out, SETTINGS)
    assert journal.begin() == ""
    for question in questions_in(files):
        journal.write(question, completion("naïve\n"), None, 1000.0)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isascii() for line in lines)
    assert [json.loads(line)["answer"] for line in lines] == ["naïve\n"] * 3


def test_stdout_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdout is no place for answers."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InvalidInputError, match="stdout: closed"):
        StreamJournal(Terminal().out, SETTINGS)


def test_no_place_for_answers(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be opened, locked or renamed is refused with the reason, and closed."""
    for name, reason in ((os.devnull, "not a regular file"), ("no/such/folder", "No such file or directory")):
        with pytest.raises(InvalidInputError, match=f"{name}: {reason}"):
            FileJournal(name, SETTINGS, most_lines=1)
    write_all(files)

    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100, fresh=True)) as journal:
        monkeypatch.setattr(os, "rename", fail)
        with pytest.raises(InvalidInputError, match=r"answers\.jsonl: Operation not permitted"):
            journal.begin()
    journal.close()  # harmless to repeat
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(InvalidInputError, match=r"answers\.jsonl: no lock: Operation not permitted"):
        open_journal(files)


def test_taken_while_set_aside(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process takes the name of a file just set aside, nothing is written to either."""
    old = write_all(files)
    rename = os.rename

    def rename_and_take(name: str, new: str) -> None:
        rename(name, new)
        other.enter_context(files.out.open("w"))
        fcntl.flock(other.enter_context(files.out.open()), fcntl.LOCK_EX)

    monkeypatch.setattr(os, "rename", rename_and_take)
    with ExitStack() as other, closing(FileJournal(str(files.out), SETTINGS, most_lines=100, fresh=True)) as journal:
        with pytest.raises(InvalidInputError, match="another process writes to it"):
            journal.begin()
        assert (files.out.read_bytes(), Path(f"{files.out}.1").read_bytes()) == (b"", old)
