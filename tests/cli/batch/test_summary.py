"""The last words of a batch: failures, counts, usage, cost."""

import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from ctxcache import AsyncSession, ChatCompletion, Prefix, Prices, Usage, system
from ctxcache.cli.batch.journal import FileJournal
from ctxcache.cli.batch.merge import Merge
from ctxcache.cli.batch.questions import NumberedQuestion, Questions
from ctxcache.cli.batch.settings import Settings
from ctxcache.cli.batch.shards import Shard
from ctxcache.cli.batch.summary import summarize_merge, summarize_stop
from ctxcache.cli.batch.work import Work
from ctxcache.cli.terminal import Terminal
from ctxcache.models import AssistantMessage, Choice

from ...hostile import CONTEXT, Hostile, answer, refusal
from ..conftest import KEY, MODEL, SOURCE, Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]
BROKEN = answer(b"{")


def test_failures_are_listed_and_tried_again(peer: Hostile, run: Run, files: Files) -> None:
    """A failure is listed with its line, makes exit code 1, and is asked again by the next start."""
    peer.plays([answer(CONTEXT)], [answer()], [refusal(400, "SensitiveContentDetected", "not that")], [answer()])
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert [one["line"] for one in files.answers()] == [1, 4]
    listed, count, _ = failed.err.splitlines()
    assert listed.startswith('ctxcache: line 3 (id "q-2"): BadRequestError: 400 SensitiveContentDetected: not that')
    assert count == f"2 of 3 answers in {files.out} (2 new), 1 failed: a retry would fail, too"
    peer.plays([answer(CONTEXT)], [answer()])
    assert run(*files.argv).code == 0
    assert [one["line"] for one in files.answers()] == [1, 3, 4]


def test_the_list_is_bounded(peer: Hostile, run: Run, files: Files) -> None:
    """The last of many failures are listed, the others counted, with `--json`, too."""
    files.ask_many(22)
    peer.plays([answer(CONTEXT)], *[[refusal(400)]] * 22)
    failed = run(*files.argv, "--concurrency", "1", "--json")
    assert failed.code == 1
    *listed, more = [line.partition(": Bad")[0] for line in failed.err.splitlines()]
    assert listed == [f"ctxcache: line {line}" for line in range(3, 23)]
    assert more == "ctxcache: and 2 more failed before these"
    told = json.loads(failed.out)
    assert told["failed"] == 22
    assert [(one["line"], one["error"]) for one in told["failures"]] == [(n, "BadRequestError") for n in range(3, 23)]


def test_summary_as_json(service: Any, run: Run, files: Files) -> None:
    """`--json` prints the summary as one object on stdout, with the cost if prices are given; stderr is empty."""
    done = run(*files.argv, "--json", "--prices", "input=1,cached=0.25,output=2,storage=0.5")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    told = json.loads(done.out)
    assert (told["questions"], told["answered"], told["calls"], told["failed"]) == (3, 3, 3, 0)
    usage = told["usage"]
    assert usage["fresh_tokens"] + usage["cached_tokens"] == usage["prompt_tokens"]
    assert told["cost"]["total"] == pytest.approx(
        (usage["fresh_tokens"] + usage["cached_tokens"] / 4 + usage["completion_tokens"] * 2) / 1e6
        + told["cost"]["storage"]
    )
    assert told["cost"]["told"].startswith("3 calls cost ")


def test_says_whether_caching_paid(service: Any, run: Run, files: Files) -> None:
    """With prices, the last line compares the cost with that of calls without a context."""
    told = run(*files.argv, "--prices", "input=1,cached=0.25,output=2").err.splitlines()[-1]
    assert told.startswith("3 calls cost ")
    assert "without a context" in told


@pytest.mark.parametrize(
    ("replies", "advice"),
    [
        ((BROKEN, BROKEN, BROKEN), "3 failed: start it again to retry"),
        ((BROKEN, refusal(400), BROKEN), "3 failed: start it again to retry 2, the others would fail again"),
        ((refusal(400), refusal(400), refusal(422)), "3 failed: a retry would fail, too"),
        ((answer(), answer(), refusal(401)), "1 failed: start it again when the cause is mended"),
    ],
)
def test_advice(peer: Hostile, run: Run, files: Files, replies: tuple[bytes, ...], advice: str) -> None:
    """Only failures that may pass are advised to be retried."""
    peer.plays([answer(CONTEXT)], *[[reply] for reply in replies])
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert f" new), {advice}\n" in failed.err


def test_failures_in_json(peer: Hostile, run: Run, files: Files) -> None:
    """Each failure has line, id, error and whether a retry would fail, too."""
    peer.plays([answer(CONTEXT)], [answer()], [refusal(400, "SensitiveContentDetected", "not\nthat")], [answer()])
    told = json.loads(run(*files.argv, "--concurrency", "1", "--json").out)
    assert (told["failed"], told["failed_for_good"]) == (1, 1)
    (failure,) = told["failures"]
    assert failure.pop("message").startswith("400 SensitiveContentDetected: not that")
    assert failure == {"line": 3, "id": "q-2", "error": "BadRequestError", "for_good": True}


def test_cost_of_all_starts(service: Any, run: Run, files: Files) -> None:
    """The cost is that of the whole file, with the creates and answers of earlier starts."""
    prices = ("--prices", "input=1,cached=0.25,output=2,storage=0")
    first = json.loads(run(*files.argv, *prices, "--json").out)
    files.ask(SOURCE, '"four"')
    second = json.loads(run(*files.argv, *prices, "--json").out)
    assert (second["answered_before"], second["answered"], second["cost"]["calls"]) == (3, 1, 4)
    usage = second["usage_of_all_starts"]
    assert usage["prompt_tokens"] == first["usage"]["prompt_tokens"] + second["usage"]["prompt_tokens"]
    total = (usage["fresh_tokens"] + usage["cached_tokens"] / 4 + usage["completion_tokens"] * 2) / 1e6
    assert second["cost"]["total"] == pytest.approx(total)
    told = run(*files.argv, *prices).err.splitlines()
    assert told[0] == f"4 of 4 answers in {files.out} (0 new)"
    assert told[1].startswith("over all starts, 4 calls cost ")


def test_stop(service: Any, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """After Ctrl-C the number of answers, the usage and the cost are reported."""
    settings = Settings.of(MODEL, "manual", {})
    prefix = Prefix(AsyncSession(KEY, service.url), model=MODEL, messages=[system("manual")])
    with (
        closing(Questions(str(files.questions))) as questions,
        closing(FileJournal(str(files.out), settings, most_lines=9)) as journal,
    ):
        work = Work(prefix, questions, journal, {}, clock=lambda: 1000.0)
        summarize_stop(work, Terminal(), Prices(input=1, cached=1, output=1))
        first = next(question for question in questions if isinstance(question, NumberedQuestion))
        usage = Usage(prompt_tokens=3, completion_tokens=1)
        journal.write(
            first, ChatCompletion(choices=(Choice(message=AssistantMessage(content="Yes")),), usage=usage), None, 1000.0
        )
        summarize_stop(work, Terminal(), Prices(input=1, cached=1, output=1))
    before, used, stopped, _, cost = capsys.readouterr().err.splitlines()
    assert before == f"stopped with 0 of 3 answers in {files.out}; start it again for the rest"
    assert used == "0 tokens in (0 cached + 0 new), 0 out"
    assert stopped == f"stopped with 1 of 3 answers in {files.out}; start it again for the rest"
    assert cost.startswith("1 call cost ")


def test_no_cost_without_answers(peer: Hostile, run: Run, files: Files) -> None:
    """Without an answer there is no cost to compare."""
    peer.plays([answer(CONTEXT)], *[[refusal(400)]] * 3)
    failed = run(*files.argv, "--concurrency", "1", "--prices", "input=1,cached=1,output=1")
    assert " cost " not in failed.err


@pytest.fixture
def merge_of() -> Iterator[Callable[[Files], Merge]]:
    """Opens the merge of the shards of a manual."""
    with ExitStack() as stack:

        def merge_of(files: Files) -> Merge:
            questions = stack.enter_context(closing(Questions(str(files.questions))))
            return stack.enter_context(closing(Merge(str(files.out), Settings.of(MODEL, "manual", {}), questions)))

        yield merge_of


def lines_of(files: Files, index: int) -> list[str]:
    """The lines of the answers of one of two shards to questions without ids."""
    settings = Settings.of(MODEL, "manual", {})
    with closing(Questions(str(files.questions), shard=Shard(index, 2))) as questions:
        mine = [one for one in questions if isinstance(one, NumberedQuestion) and questions.has(one)]
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    fields = [{"line": one.line, "question_hash": one.hash, "usage": usage, **settings.fields()} for one in mine]
    return [json.dumps(one) + "\n" for one in fields]


def test_what_a_merge_lacks(
    files: Files, capsys: pytest.CaptureFixture[str], merge_of: Callable[[Files], Merge]
) -> None:
    """Each shard that lacks answers has a line with the number, the first questions, and the way out."""
    files.ask_many(20)
    name = files.out.with_name("answers.0-of-2.jsonl")
    name.write_text("".join(lines_of(files, 0)[7:]) + '{"line": 1, "q')
    merge = merge_of(files)
    merge.add_up()
    summarize_merge(merge, Terminal(), Prices(input=1, cached=1, output=1), is_written=False, as_json=False)
    first, second, result, count, used, cost = capsys.readouterr().err.splitlines()
    assert first == (
        "ctxcache: shard 0/2: 7 of 10 questions without an answer: line 1, line 3, line 5, line 7, line 9 and 2 more; "
        "the last answer was cut off by a kill; they failed or were not asked, start it again with --shard 0/2"
    )
    lost = files.out.with_name("answers.1-of-2.jsonl")
    assert second == f"ctxcache: shard 1/2: lost, there is no {lost}: start it with --shard 1/2 for its 10 questions"
    missing = "17 of 20 questions have no answer; --partial writes the other answers"
    assert result == f"ctxcache: {files.out} was not written: {missing}"
    assert (count, used) == ("3 of 20 answers in 2 shards", "9 tokens in (0 cached + 9 new), 3 out")
    assert cost.startswith("over all starts, 3 calls cost ")
    with name.open("r+") as running:
        running.truncate(0)
        fcntl.flock(running, fcntl.LOCK_EX)
        lost.write_text("notes\n")
        merge = merge_of(files)
        summarize_merge(merge, Terminal(), Prices(input=1, cached=1, output=1), is_written=False, as_json=False)
    first, second, _, count = capsys.readouterr().err.splitlines()
    assert first.startswith("ctxcache: shard 0/2: still running, 10 of 10 questions without an answer: line 1, ")
    assert second == f"ctxcache: shard 1/2: {lost}: line 1 is not an answer that `ctxcache map` wrote"
    assert count == "0 of 20 answers in 2 shards"


def test_a_merge(files: Files, capsys: pytest.CaptureFixture[str], merge_of: Callable[[Files], Merge]) -> None:
    """A merge of all answers has a line with their number, and one with their usage; JSON has each shard."""
    files.ask('"one"')
    files.out.with_name("answers.0-of-2.jsonl").write_text("".join(lines_of(files, 0)))
    merge = merge_of(files)
    merge.write()
    summarize_merge(merge, Terminal(), None, is_written=True, as_json=False)
    count, used = capsys.readouterr().err.splitlines()
    assert count == f"1 of 1 answers in {files.out}, from 2 shards"
    assert used.startswith("3 tokens in ")
    summarize_merge(merge, Terminal(), Prices(input=1, cached=1, output=1), is_written=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [(one["shard"], one["state"]) for one in told.pop("shards")] == [("0/2", "complete"), ("1/2", "complete")]
    assert told.pop("usage_of_all_starts")["total_tokens"] == 4
    assert told.pop("cost")["calls"] == 1
    assert told == {"questions": 1, "answered": 1, "missing": 0, "written": True}
