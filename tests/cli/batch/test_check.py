"""The check of all questions, before anything is sent."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.cli.batch.check import BadQuestionsError, count_questions
from ctxcache.cli.batch.journal import FileJournal, Journal
from ctxcache.cli.batch.questions import NumberedQuestion, Questions
from ctxcache.cli.batch.settings import Settings
from ctxcache.cli.batch.shards import Shard

from ...hostile import Hostile
from ..conftest import Files

Run = Callable[..., Any]
SETTINGS = Settings.of("m", "manual", {})
FOUR = (
    '{"question": "a", "id": "a"}',
    '{"question": "b", "id": "b"}',
    '{"question": "c", "id": 3}',
    '"without an id"',
)


@pytest.fixture
def journal(files: Files) -> Any:
    """The answers to four questions, three of which have an id."""
    files.ask(*FOUR)
    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100)) as journal:
        with closing(Questions(str(files.questions))) as questions:
            for question in questions:
                assert isinstance(question, NumberedQuestion)
                journal.answered.add(question.line, question.id, question.hash)
        yield journal


def check(files: Files, journal: Journal, *lines: str, shard: Shard | None = None) -> int:
    """Check the questions against the answers."""
    files.ask(*lines)
    with closing(Questions(str(files.questions), shard=shard)) as questions:
        return count_questions(questions, journal)


def test_unchanged(files: Files, journal: Journal) -> None:
    """The same questions are counted."""
    assert check(files, journal, *FOUR) == 4


def test_appended(files: Files, journal: Journal) -> None:
    """Questions may be appended."""
    assert check(files, journal, *FOUR, '"five"', '{"question": "six", "id": 6}') == 6


def test_moved_and_inserted(files: Files, journal: Journal) -> None:
    """Questions with ids may be moved, and others inserted between them."""
    a, b, c, without = FOUR
    new = '{"question": "new", "id": "new"}'
    assert check(files, journal, c, new, new.replace("new", "newer"), without, b, '"five"', a) == 7


@pytest.mark.parametrize(
    ("lines", "change"),
    [
        ((FOUR[0], '{"question": "B", "id": "b"}', *FOUR[2:]), 'line 2 (id "b") was changed'),
        ((*FOUR[:2], '{"question": "c", "id": "3"}', FOUR[3]), "1 was removed or moved"),
        ((*FOUR[:3], '"with another text"'), "line 4 was changed"),
        (('"inserted"', *FOUR), "1 was removed or moved"),
        (("", *FOUR), "1 was removed or moved"),
        ((FOUR[3],), "4 were removed or moved"),
    ],
)
def test_changed(files: Files, journal: Journal, lines: tuple[str, ...], change: str) -> None:
    """A changed, removed or moved question is named; a question without an id may not move."""
    with pytest.raises(InvalidInputError) as refused:
        check(files, journal, *lines)
    assert str(refused.value).startswith(f"{files.out}: was written for different questions (")
    assert change in str(refused.value)
    assert str(refused.value).endswith("): undo the change, give another --out, or start over with --fresh")


def test_ids_given_later(files: Files) -> None:
    """Questions that get ids after they were answered are the same questions."""
    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100)) as journal:
        files.ask('"one"', '"two"')
        with closing(Questions(str(files.questions))) as questions:
            for question in questions:
                assert isinstance(question, NumberedQuestion)
                journal.answered.add(question.line, question.id, question.hash)
        assert check(files, journal, '{"question": "one", "id": "a"}', '{"question": "two", "id": "b"}') == 2


def test_repeated_ids(peer: Hostile, run: Run, files: Files) -> None:
    """An id that two questions share is refused, with both lines."""
    files.ask('{"question": "a", "id": "x\\u001b"}', '"b"', '{"question": "c", "id": "x\\u001b"}')
    refused = run(*files.argv)
    assert refused.code == 2
    assert refused.err == f'ctxcache: {files.questions}, line 3: line 1 has the same id, "x\\u001b"\n'
    assert peer.posts == []


@pytest.mark.parametrize("bad", [2, 20, 21, 25])
def test_every_bad_line(peer: Hostile, run: Run, files: Files, bad: int) -> None:
    """The first 20 bad lines are listed, in order, and the others counted; nothing is sent and nothing written."""
    files.ask('"good"', *['{"question": 5}'] * bad, '"good"')
    refused = run(*files.argv)
    assert refused.code == 2
    lines = refused.err.splitlines()
    problem = "question must be a string, or a list of parts, got 5"
    listed = [f"ctxcache: {files.questions}, line {line}: {problem}" for line in range(2, 2 + min(bad, 20))]
    assert lines[:20] == listed
    more = bad - 20
    assert lines[20:] == ([f"ctxcache: and {more} more bad line{'' if more == 1 else 's'}"] if more > 0 else [])
    assert files.out.read_bytes() == b""
    assert peer.posts == []


def test_error_has_the_problems(files: Files, journal: Journal) -> None:
    """The error counts the bad lines, and has the message of each of the first 20."""
    with pytest.raises(BadQuestionsError, match=r"q\.jsonl: 30 bad lines") as bad:
        check(files, journal, *[json.dumps({"id": n}) for n in range(30)])
    assert (len(bad.value.problems), bad.value.count) == (20, 30)


def test_answers_of_another_shard(files: Files, journal: Journal) -> None:
    """Answers to questions of another shard are refused."""
    with pytest.raises(InvalidInputError, match="removed or moved"):
        check(files, journal, *FOUR, shard=Shard(0, 2))


def test_shard(files: Files) -> None:
    """Only the questions of the shard are counted, but bad lines of all shards are found."""
    lines = ['"one"', '{"question": "b", "id": "b"}', "", '"two"', '"three"']
    sizes = []
    for index in range(3):
        with closing(FileJournal(str(files.out), SETTINGS, most_lines=100)) as empty:
            sizes.append(check(files, empty, *lines, shard=Shard(index, 3)))
            with pytest.raises(BadQuestionsError):
                check(files, empty, *lines, '{"question": "c", "id": "b"}', shard=Shard(index, 3))
    assert sorted(sizes) == [1, 1, 2]
