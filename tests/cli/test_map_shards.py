"""`ctxcache map` as tasks of a scheduler: a shard each, killed and started again, merged."""

import asyncio
import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxcache.gateway import Gateway, Prompt

from ..hostile import CONTEXT, Hostile, answer
from ..managed.redis_server import BINARY, NO_BINARY, redis_server
from .conftest import KEY, MODEL, PATIENCE, Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]
COUNT = 8
PRICES = ("--prices", "input=1,cached=0.1,output=1")


class HoldingEngine:
    """Answers every question but `hold`, the first time; counts how often each was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.held = threading.Event()

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply."""
        question = prompt.question[-1].content
        self.asked[question] += 1
        if question == "hold" and self.asked[question] == 1:
            self.held.set()
            await asyncio.Event().wait()
        yield f"→ {question}"


@pytest.fixture
def engine(thread: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[HoldingEngine]:
    """The engine of a gateway, and the environment that leads the command there."""
    engine = HoldingEngine()
    gateway = Gateway(engine=engine, api_key=KEY)
    thread.run(gateway.start())
    for name, value in (("BASE_URL", gateway.base_url), ("API_KEY", KEY), ("MODEL", MODEL)):
        monkeypatch.setenv(f"CTXCACHE_{name}", value)
    yield engine
    thread.run(gateway.aclose())


def shard_file(files: Files, index: int, count: int = COUNT) -> Path:
    """The file of a shard."""
    return files.out.with_name(f"answers.{index}-of-{count}.jsonl")


def merged(files: Files) -> list[dict[str, Any]]:
    """The answers in the merged file, in its order."""
    return [json.loads(line) for line in files.out.read_text().splitlines()]


def test_killed_and_lost(engine: HoldingEngine, spawn: Spawn, run: Run, files: Files) -> None:
    """Of eight tasks one is killed and one lost: the merge says which, and after a restart has every answer once."""
    questions = [f"question {number}" for number in range(80)]
    questions[5 * COUNT + 3] = "hold"  # the sixth of shard 3
    files.ask(*map(json.dumps, questions))
    store = ("--store", str(files.store))
    started = {
        index: spawn(*files.argv, "--shard", f"{index}/{COUNT}", "--concurrency", "1", *store)
        for index in range(COUNT)
        if index != 5
    }
    assert engine.held.wait(3 * PATIENCE)
    for index, process in started.items():
        if index != 3:
            _, err = process.communicate(timeout=3 * PATIENCE)
            assert process.returncode == 0, err
            assert f"10 of 10 answers in {shard_file(files, index)} (10 new)" in err
    running = run(*files.argv, "--merge")
    assert running.code == 1
    assert "ctxcache: shard 3/8: still running, 5 of 10 questions without an answer: line 44, " in running.err

    started[3].send_signal(signal.SIGKILL)
    started[3].wait(PATIENCE)
    with shard_file(files, 3).open("a") as file:
        file.write('{"line": 44, "question_h')
    missing = run(*files.argv, "--merge", *PRICES)
    assert (missing.code, missing.out, files.out.exists()) == (1, "", False)
    killed, lost, result, count, _, cost = missing.err.splitlines()
    assert killed == (
        "ctxcache: shard 3/8: 5 of 10 questions without an answer: line 44, line 52, line 60, line 68, line 76; the "
        "last answer was cut off by a kill; they failed or were not asked, start it again with --shard 3/8"
    )
    name = shard_file(files, 5)
    assert lost == f"ctxcache: shard 5/8: lost, there is no {name}: start it with --shard 5/8 for its 10 questions"
    assert result.startswith(f"ctxcache: {files.out} was not written: 15 of 80 questions have no answer; --partial")
    assert (count, cost[:28]) == ("65 of 80 answers in 8 shards", "over all starts, 65 calls co")

    for index in (3, 5):
        process = spawn(*files.argv, "--shard", f"{index}/{COUNT}", *store)
        assert process.wait(3 * PATIENCE) == 0
    done = run(*files.argv, "--merge", *PRICES)
    assert (done.code, done.err.splitlines()[0]) == (0, f"80 of 80 answers in {files.out}, from 8 shards")
    answers = merged(files)
    assert [one["answer"] for one in answers] == [f"→ {question}" for question in questions]
    assert engine.asked == Counter({**dict.fromkeys(questions, 1), "hold": 2})  # the kill lost the first
    (context_id,) = {one["context_id"] for one in answers}
    (create,) = [create for one in answers for create in one.get("created", [])]
    assert create["context_id"] == context_id


def test_partial(engine: HoldingEngine, run: Run, files: Files) -> None:
    """`--partial` writes what there is, still with exit code 1; `--json` has each shard."""
    assert run(*files.argv, "--shard", "1/2", "--store", str(files.store)).code == 0
    some = run(*files.argv, "--merge", "--partial", "--json", *PRICES)
    told = json.loads(some.out)
    answered = len(merged(files))
    assert (some.code, some.err.count("\n")) == (1, 1)
    assert 0 < answered < 3
    assert (told["questions"], told["answered"], told["missing"]) == (3, answered, 3 - answered)
    assert (told["written"], told["cost"]["calls"]) == (True, answered)
    assert told["usage_of_all_starts"]["total_tokens"] > 0
    lost, there = told["shards"]
    assert there == {
        "shard": "1/2",
        "file": str(shard_file(files, 1, 2)),
        "state": "complete",
        "questions": answered,
        "answered": answered,
        "missing": 0,
        "torn": False,
        "problem": None,
    }
    assert (lost["shard"], lost["state"], lost["missing"]) == ("0/2", "lost", 3 - answered)
    assert run(*files.argv, "--shard", "0/2").code == 0
    assert run(*files.argv, "--merge").code == 0
    assert [one["line"] for one in merged(files)] == [1, 3, 4]
    assert run(*files.argv).err.startswith(f"3 of 3 answers in {files.out} (0 new)\n")  # as a file like any other


def test_as_a_task(engine: HoldingEngine, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job array each task takes its shard by itself and says so; `--shard none` asks all."""
    for name, value in (("COUNT", 2), ("MIN", 1), ("MAX", 3)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    files.ask_many(5)
    for id_, said in ((1, "3 of 3"), (3, "2 of 2")):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(id_))
        done = run(*files.argv)
        first, second, third, *_ = done.err.splitlines()
        assert (done.code, first) == (
            0,
            f"shard {id_ // 2}/2, from SLURM_ARRAY_TASK_ID; --shard none asks all questions",
        )
        assert second == "without --store, each of the 2 shards creates and pays for a context of its own"
        assert third.startswith(f"{said} answers in {shard_file(files, id_ // 2, 2)} ")
    assert run(*files.argv, "--merge").code == 0  # whatever the variables say
    assert [one["line"] for one in merged(files)] == [1, 2, 3, 4, 5]
    other = (*files.argv[:-1], str(files.out.with_name("other.jsonl")))
    assert "5 of 5 answers in" in run(*other, "--shard", "none").err
    assert set(engine.asked.values()) == {2}


def test_pipes(engine: HoldingEngine, run: Run, files: Files) -> None:
    """A shard takes its questions from stdin, and its answers may go to stdout."""
    argv = ("map", "--prefix", str(files.prefix), "--questions", "-", "--out", "-", "--shard", "1/2")
    done = run(*argv, stdin=b'"one"\n\n"two"\n"three"\n"four"\n')
    assert done.code == 0
    assert sorted(json.loads(line)["answer"] for line in done.out.splitlines()) == ["→ four", "→ two"]


def test_another_number_of_shards(peer: Hostile, run: Run, files: Files) -> None:
    """Shards of another number, or none, are refused where a start has left answers, and nothing is sent."""
    files.ask_many(4)
    peer.plays([answer(CONTEXT)], *[[answer()]] * 2)
    assert run(*files.argv, "--shard", "0/2").code == 0
    peer.posts.clear()
    refused = run(*files.argv, "--shard", "0/4", "--store", str(files.store))
    way_out = "go on with --shard I/2, or give another --out"
    there = f"ctxcache: {shard_file(files, 0, 2)}: has answers of a start with"
    assert (refused.code, refused.err) == (2, f"{there} 2 shards, not 4: {way_out}\n")
    assert run(*files.argv).err.startswith(f"{there} shards: go on with --shard I/2, use --merge, or ")
    assert peer.posts == []
    assert not shard_file(files, 0, 4).exists()


def test_bad_lines(peer: Hostile, run: Run, files: Files) -> None:
    """A bad line stops every shard, and the merge."""
    shard_file(files, 0).touch()
    files.ask('"good"', "{}")
    for argv in (("--shard", "0/8"), ("--shard", "7/8"), ("--merge",)):
        refused = run(*files.argv, *argv, "--store", str(files.store))
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "line 2: a question must be" in refused.err
    assert peer.posts == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--shard", "8/8"), "'8/8' is not a shard; the first of 8 is 0/8, the last 7/8"),
        (("--shard", "0/0"), "'0/0' is not a shard"),
        (("--shard", "2"), "'2' is not a shard; use I/N, such as 0/8 to 7/8, or none"),
        (("--shard", "0/8", "--merge"), "not allowed with argument --shard"),
        (("--merge",), "there are no shards to merge"),
        (("--merge", "--fresh"), "--merge takes no --fresh, and no - for --out"),
        (("--merge", "--out", "-"), "--merge takes no --fresh, and no - for --out"),
        (("--merge", "--model", ""), "no model"),
        (("--partial",), "--partial goes with --merge only"),
    ],
)
def test_bad_usage(peer: Hostile, run: Run, files: Files, argv: tuple[str, ...], told: str) -> None:
    """Bad options are reported in one line, with exit code 2, and nothing is sent."""
    refused = run(*files.argv, *argv)
    assert (refused.code, refused.out) == (2, "")
    assert told in refused.err
    assert refused.err.count("\n") == 1
    assert peer.posts == []


def test_an_unknown_count(peer: Hostile, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of an indexed Job whose number of shards is unknown asks nothing."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    refused = run(*files.argv)
    assert refused.code == 2
    assert "set CTXCACHE_SHARDS to the completions of the Job, give --shard I/N, or" in refused.err
    assert (peer.posts, files.out.parent.joinpath("answers.3-of-8.jsonl").exists()) == ([], False)


@pytest.mark.skipif(BINARY is None, reason=NO_BINARY)
def test_a_redis(engine: HoldingEngine, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards share one context in a Redis, named by an option or by the environment."""
    files.ask_many(4)
    with redis_server() as url:
        assert run(*files.argv, "--shard", "0/2", "--store", url).code == 0
        monkeypatch.setenv("CTXCACHE_STORE", url)
        assert run(*files.argv, "--shard", "1/2").code == 0
    assert run(*files.argv, "--merge").code == 0
    assert len({one["context_id"] for one in merged(files)}) == 1
