"""The merge of shards: every answer once, in order, and nothing missing goes unsaid."""

import fcntl
import json
import os
import resource
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ctxcache import ChatCompletion, Context, InvalidInputError, Prices, Usage
from ctxcache.cli.batch.check import BadQuestionsError
from ctxcache.cli.batch.journal import FileJournal
from ctxcache.cli.batch.merge import Merge, State
from ctxcache.cli.batch.questions import NumberedQuestion, Questions
from ctxcache.cli.batch.settings import Settings
from ctxcache.cli.batch.shards import Shard
from ctxcache.models import AssistantMessage, Choice

from ..conftest import Files

SETTINGS = Settings.of("m", "# Manual\n", {})
COUNT = 3
LINES = [f'{{"question": "q{n}", "id": "id-{n}"}}' if n % 3 == 0 else f'"q{n}"' for n in range(1, 22)]


def write_shard(
    files: Files, index: int, *, settings: Settings = SETTINGS, skip: int = 0, time: float = 1000.0
) -> Path:
    """Answer the questions of a shard, but the first few; the shard has created a context of its own."""
    name = Shard(index, COUNT).file(str(files.out))
    with (
        closing(Questions(str(files.questions), shard=Shard(index, COUNT))) as questions,
        closing(FileJournal(name, settings, most_lines=100)) as journal,
    ):
        journal.note_create(Context(id=f"ctx-{index}", ttl=3600, usage=Usage(prompt_tokens=7, total_tokens=7)), time)
        mine = [one for one in questions if isinstance(one, NumberedQuestion) and questions.has(one)]
        for question in reversed(mine[skip:]):
            choice = Choice(message=AssistantMessage(content=f"→ {question.messages[0].text}"), finish_reason="stop")
            answer = ChatCompletion(choices=(choice,), usage=Usage(prompt_tokens=2, completion_tokens=1))
            journal.write(question, answer, f"ctx-{index}", time)
    return Path(name)


@pytest.fixture
def merge(files: Files) -> Any:
    """Open a merge of the shards of 21 questions, seven of which have an id."""
    files.ask(*LINES)
    opened: list[Any] = []

    def merge(settings: Settings = SETTINGS) -> Merge:
        questions = Questions(str(files.questions))
        opened.append(questions)
        opened.append(Merge(str(files.out), settings, questions))
        return opened[-1]  # type: ignore[no-any-return]

    yield merge
    for one in opened:
        one.close()


Open = Callable[..., Merge]


def states(merge: Merge) -> list[str]:
    """The state of each shard."""
    return [shard.state.value for shard in merge.shards]


def merged(files: Files) -> list[dict[str, Any]]:
    """The answers in the merged file, in its order."""
    return [json.loads(line) for line in files.out.read_text().splitlines()]


def test_in_the_order_of_the_questions(files: Files, merge: Open) -> None:
    """The merged file has every answer once, in the order of the questions, and is a file like any other."""
    lines = {line for index in range(COUNT) for line in write_shard(files, index).read_text().splitlines()}
    one = merge()
    assert (one.is_complete, one.questions, one.missing) == (True, 21, 0)
    one.write()
    assert [answer["answer"] for answer in merged(files)] == [f"→ q{number}" for number in range(1, 22)]
    same = lines & set(files.out.read_text().splitlines())
    assert len(same) == 21 - COUNT - 1  # all but those that had the creates, and the first, which has them now
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(files.out.stat().st_mode) == 0o666 & ~umask
    with closing(Questions(str(files.questions))) as questions:
        FileJournal(str(files.out), SETTINGS, most_lines=questions.size + 1).close()


def test_the_bill_of_the_whole(files: Files, merge: Open) -> None:
    """The creates of all shards go to the first line, in order of time; the merged file has the bill of the whole."""
    for index in range(COUNT):
        write_shard(files, index, time=5000.0 - index)
    one = merge()
    one.write()
    first, *others = merged(files)
    assert [create["context_id"] for create in first["created"]] == ["ctx-2", "ctx-1", "ctx-0"]
    assert not any("created" in answer for answer in others)
    assert (one.books.creates, one.books.usage.prompt_tokens) == (COUNT, COUNT * 7 + 21 * 2)
    with closing(FileJournal(str(files.out), SETTINGS, most_lines=100)) as journal:
        prices = Prices(input=1, cached=1, output=1, storage_per_hour=1)
        assert journal.books.cost(prices, 9000.0) == one.books.cost(prices, 9000.0)
    again = merge()
    again.add_up()
    assert again.books.usage == one.books.usage


def test_a_lost_shard(files: Files, merge: Open) -> None:
    """A shard without a file is lost; without questions it is complete."""
    write_shard(files, 0)
    write_shard(files, 2)
    one = merge()
    assert states(one) == ["complete", "lost", "complete"]
    assert one.missing == one.shards[1].questions > 0
    files.ask('"only"')
    assert states(merge()) == ["refused", "complete", "refused"]
    for index in (0, 2):
        Path(Shard(index, COUNT).file(str(files.out))).write_text("")
    assert states(merge()) == ["unfinished", "complete", "complete"]


def test_unanswered(files: Files, merge: Open) -> None:
    """Questions without an answer are counted, and the first five named; a running shard is known by the lock."""
    for index in range(COUNT):
        path = write_shard(files, index, skip=6 if index == 1 else 0)
    one = merge()
    assert states(one) == ["complete", "unfinished", "complete"]
    assert (one.missing, len(one.shards[1].places)) == (6, 5)
    assert all(place.startswith("line ") for place in one.shards[1].places)
    with path.with_name("answers.1-of-3.jsonl").open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert states(merge()) == ["complete", "running", "complete"]
    with path.open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert states(merge()) == ["complete", "unfinished", "complete"]  # it has all its answers


@pytest.mark.parametrize("zeros", [0, 300])
def test_torn(files: Files, merge: Open, zeros: int) -> None:
    """An answer cut off by a kill is no answer, is said to be one while no process writes, and is not written."""
    paths = [write_shard(files, index) for index in range(COUNT)]
    whole = paths[1].read_bytes()
    cut = whole.rindex(b"\n", 0, -1) + 30
    paths[1].write_bytes(whole[:cut] + bytes(zeros))
    one = merge()
    assert states(one) == ["complete", "unfinished", "complete"]
    assert (one.missing, one.shards[1].is_torn, one.shards[0].is_torn) == (1, True, False)
    one.write()
    assert len(merged(files)) == 20
    with paths[1].open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert not merge().shards[1].is_torn


def test_partial(files: Files, merge: Open) -> None:
    """A merge of some answers is replaced by that of all, as an older merge is."""
    write_shard(files, 0, skip=2)
    merge().write()
    some = merged(files)
    assert 0 < len(some) < 21
    for index in (1, 2):
        write_shard(files, index)
    Path(Shard(0, COUNT).file(str(files.out))).unlink()
    write_shard(files, 0)
    merge().write()
    assert len(merged(files)) == 21


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.write_text("# a manual\n"), "line 1 is not an answer that `ctxcache map` wrote"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "a second time"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"m"', b'"n"')), 'a different model ("n")'),
        (lambda path: path.write_text(path.read_text().replace('question_hash": "', 'question_hash": "f')), "changed)"),
        (lambda path: path.write_bytes(path.with_name("answers.0-of-3.jsonl").read_bytes()), "removed or moved)"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
def test_refused(files: Files, merge: Open, change: Callable[[Path], object], told: str) -> None:
    """A shard that cannot be used is refused with the reason, and its answers are left out."""
    paths = [write_shard(files, index) for index in range(COUNT)]
    change(paths[1])
    one = merge()
    assert states(one) == ["complete", "refused", "complete"]
    shard = one.shards[1]
    assert shard.problem.startswith(f"{paths[1]}: ")
    assert told in shard.problem
    assert (shard.answers, shard.missing) == (0, shard.questions)
    assert not one.is_complete
    one.write()
    assert len(merged(files)) == 21 - shard.questions
    assert "ctx-1" not in files.out.read_text()


def test_wrong_settings(files: Files, merge: Open) -> None:
    """Shards of another manual are refused, each of them."""
    for index in range(COUNT):
        write_shard(files, index, settings=Settings.of("m", "another manual", {}))
    one = merge()
    assert states(one) == ["refused"] * COUNT
    assert all("a different prefix" in shard.problem for shard in one.shards)
    one.add_up()
    assert one.books.usage.total_tokens == 0


def test_no_answer_is_lost(files: Files, merge: Open) -> None:
    """An older file with an answer that no shard has, or with answers to other questions, is not replaced."""
    for index in range(COUNT):
        write_shard(files, index)
    merge().write()
    before = files.out.read_bytes()
    Path(Shard(1, COUNT).file(str(files.out))).unlink()
    with pytest.raises(InvalidInputError, match=r"answers\.jsonl: \d answers are in no shard: rename the file, or"):
        merge().write()
    write_shard(files, 1)
    old = before.replace(b'"question_hash": "', b'"question_hash": "f', 1)
    files.out.write_bytes(old)
    with pytest.raises(InvalidInputError, match=r"answers\.jsonl: was written for different questions"):
        merge().write()
    files.out.write_text("notes\n")
    with pytest.raises(InvalidInputError, match="line 1 is not an answer"):
        merge().write()
    assert files.out.read_text() == "notes\n"
    files.out.write_bytes(before)
    with files.out.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InvalidInputError, match="another process writes to it"):
            merge().write()
    assert sorted(os.listdir(files.out.parent))[:4] == [
        *(f"answers.{index}-of-3.jsonl" for index in range(COUNT)),
        "answers.jsonl",
    ]


def test_nothing_to_merge(files: Files, merge: Open) -> None:
    """Without shards, or with those of two counts, or with bad questions, there is no merge."""
    with pytest.raises(InvalidInputError, match=r"there are no shards to merge: no file .*answers\.I-of-N\.jsonl"):
        merge()
    write_shard(files, 0)
    other = files.out.with_name("answers.1-of-2.jsonl")
    other.write_text("x")
    with pytest.raises(InvalidInputError, match=r"different counts, .*answers\.1-of-2\.jsonl and .*answers\.0-of-3"):
        merge()
    other.unlink()
    files.ask(*LINES, "{}")
    with pytest.raises(BadQuestionsError):
        merge()


def test_more_shards_than_open_files(files: Files, merge: Open) -> None:
    """A merge has room for all its files, where the system's usual limit has not."""
    files.ask('"one"')
    for index in range(300):
        Path(Shard(index, 300).file(str(files.out))).touch()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        assert states(merge()) == ["unfinished", *["complete"] * 299]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_odd_creates(files: Files, merge: Open) -> None:
    """Creates of an odd shape, which another program wrote, are left out or come first."""
    paths = [write_shard(files, index) for index in range(COUNT)]
    for path, created in zip(paths, (5, [7, {"context_id": "ctx-9", "time": None}], []), strict=True):
        first, *others = path.read_text().splitlines(keepends=True)
        path.write_text(json.dumps({**json.loads(first), "created": created}) + "\n" + "".join(others))
    one = merge()
    assert one.shards[0].state is State.COMPLETE
    one.write()
    assert merged(files)[0]["created"] == [{"context_id": "ctx-9", "time": None}]
