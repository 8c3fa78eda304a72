"""One start of a batch: the rest is asked, failures are counted, hopeless batches stop."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache.gateway import Gateway, Prompt

from ...hostile import CONTEXT, Hostile, answer, refusal
from ..conftest import KEY, PATIENCE, SOURCE, Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_does_the_rest(service: Any, run: Run, files: Files) -> None:
    """Appended questions, and questions whose answers were removed, are asked, and no others."""
    run(*files.argv)
    kept = files.out.read_text().splitlines(keepends=True)[1]
    files.out.write_text(kept)
    files.ask(SOURCE, '"four"')
    done = run(*files.argv)
    assert done.code == 0
    assert files.out.read_text().startswith(kept)
    assert [one["line"] for one in files.answers()] == [1, 3, 4, 5]
    assert f"4 of 4 answers in {files.out} (3 new)\n" in done.err


def closed_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lead the command to a port where nobody listens; return the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    for name, value in (("BASE_URL", f"http://127.0.0.1:{port}/v1"), ("API_KEY", KEY), ("MODEL", gateway_model())):
        monkeypatch.setenv(f"CTXCACHE_{name}", value)
    return port


def test_a_service_that_starts_late(thread: Any, spawn: Spawn, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The create of the context waits for the service: a line when the wait begins, one when it ends."""
    gateway = Gateway(api_key=KEY, port=closed_port(monkeypatch))
    process = spawn(*files.argv)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("ctxcache: map: no connection, all questions wait for up to 120 s: cannot connect")
    thread.run(gateway.start())
    try:
        _, rest = process.communicate(timeout=PATIENCE)
    finally:
        thread.run(gateway.aclose())
    again, count, _ = rest.splitlines()
    assert again.startswith("ctxcache: map: connected again after ")
    assert (process.returncode, count) == (0, f"3 of 3 answers in {files.out} (3 new)")


def test_a_service_that_never_starts(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `--retry-for` the command ends with the one error."""
    closed_port(monkeypatch)
    failed = run(*files.argv, "--retry-for", "0")
    _, given_up, error = failed.err.splitlines()
    assert failed.code == 1
    assert given_up.startswith("ctxcache: map: no connection for ")
    assert error.startswith("ctxcache: cannot connect: 127.0.0.1:")
    assert files.answers() == []


def test_a_create_that_fails(peer: Hostile, run: Run, files: Files) -> None:
    """A create that is refused for good ends the command: sent once, and no question after."""
    files.ask_many(500)
    peer.plays(*[[refusal(400, "InvalidParameter", "no such model")]] * 3)
    failed = run(*files.argv)
    assert (failed.code, len(peer.posts)) == (1, 1)
    assert failed.err.startswith("ctxcache: 400 InvalidParameter: no such model")
    assert failed.err.count("\n") == 1


class KillingEngine:
    """Answers, and kills the client at the n-th question."""

    def __init__(self) -> None:
        self.left = 0
        self.asked = 0
        self.process: subprocess.Popen[str] | None = None
        self.started = threading.Event()

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply."""
        self.asked += 1
        self.left -= 1
        if self.left == 0 and self.started.wait(20) and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
        yield f"re: {prompt.question[-1].content}"


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_points(
    thread: Any, run: Run, spawn: Spawn, files: Files, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Killed and started again, over and over, the command writes each answer once and whole."""
    dice, engine, killed = random.Random(seed), KillingEngine(), 0
    files.ask_many(150)
    gateway = Gateway(engine=engine)
    thread.run(gateway.start())
    try:
        for name, value in (("BASE_URL", gateway.base_url), ("API_KEY", gateway.api_key), ("MODEL", gateway_model())):
            monkeypatch.setenv(f"CTXCACHE_{name}", value)
        for _ in range(4):
            engine.left = dice.randint(1, 40)
            engine.started.clear()
            engine.process = spawn(*files.argv, "--store", str(files.store), "--concurrency", "8")
            engine.started.set()
            killed += engine.process.wait(20) == -signal.SIGKILL
            if dice.random() < 0.5 and files.out.exists():  # as if it had been killed in the middle of a write
                os.truncate(files.out, max(files.out.stat().st_size - dice.randint(0, 30), 0))
        engine.left = 0
        done = run(*files.argv, "--store", str(files.store))
    finally:
        thread.run(gateway.aclose())
    assert done.code == 0, done.err
    assert killed == 4
    answers = files.answers()
    assert [one["line"] for one in answers] == list(range(1, 151))
    assert [one["answer"] for one in answers] == [f"re: question {one['line']}" for one in answers]
    assert engine.asked < 150 + 4 * (8 + 2)


def test_killed_with_ids(thread: Any, run: Run, spawn: Spawn, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while its questions move about, the command writes the answer of each id once."""
    dice, engine = random.Random(7), KillingEngine()
    questions = [json.dumps({"question": f"question {number}", "id": f"q-{number}"}) for number in range(100)]
    gateway = Gateway(engine=engine)
    thread.run(gateway.start())
    try:
        for name, value in (("BASE_URL", gateway.base_url), ("API_KEY", gateway.api_key), ("MODEL", gateway_model())):
            monkeypatch.setenv(f"CTXCACHE_{name}", value)
        for first in (25, 50, 75):
            some = questions[:first]
            dice.shuffle(some)
            files.ask(*some)
            engine.left = dice.randint(1, 20)
            engine.started.clear()
            engine.process = spawn(*files.argv, "--concurrency", "8")
            engine.started.set()
            assert engine.process.wait(20) == -signal.SIGKILL
        engine.left = 0
        files.ask(*reversed(questions))
        done = run(*files.argv)
    finally:
        thread.run(gateway.aclose())
    assert done.code == 0, done.err
    answers = {one["id"]: one["answer"] for one in files.answers()}
    assert len(files.answers()) == 100
    assert answers == {f"q-{number}": f"re: question {number}" for number in range(100)}


def gateway_model() -> str:
    """A model the gateway serves."""
    return "Doubao-1.5-pro-32k"


@pytest.mark.parametrize(("status", "code"), [(401, ""), (429, "QuotaExceeded")])
def test_what_every_question_would_meet_stops_it(peer: Hostile, run: Run, files: Files, status: int, code: str) -> None:
    """A bad key or an empty quota stops the batch: the rest is left for the next start."""
    peer.plays([answer(CONTEXT)], [answer()], [refusal(status, code)])
    files.ask_many(500)
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert "further questions would fail like this one: the rest was not asked\n" in failed.err
    assert len(peer.posts) <= 5  # one may have been begun before the answer was looked at
    assert len(files.answers()) == 1


def test_a_service_that_is_down_stops_it(peer: Hostile, run: Run, files: Files) -> None:
    """After a hundred failures in a row the rest is left for the next start."""
    peer.plays([answer(CONTEXT)], *[[refusal(400)]] * 110)
    files.ask_many(500)
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert "100 questions failed in a row: the rest was not asked\n" in failed.err
    assert len(peer.posts) <= 104


def test_options_of_a_question(peer: Hostile, run: Run, files: Files) -> None:
    """The sampling options of a question override those of the command line, for this question only."""
    files.ask('{"question": "one", "temperature": 0.3, "stop": ["a", "b"]}', '"two"')
    peer.plays([answer(CONTEXT)], [answer()], [answer()])
    done = run(*files.argv, "--temperature", "0.7", "--max-tokens", "5", "--stop", "c", "--concurrency", "1")
    assert done.code == 0, done.err
    _, one, two = (post.json for post in peer.posts)
    assert (one["temperature"], one["max_tokens"], one["stop"]) == (0.3, 5, ["a", "b"])
    assert (two["temperature"], two["max_tokens"], two["stop"]) == (0.7, 5, ["c"])


def test_a_new_context_while_the_old_one_is_billed(service: Any, run: Run, files: Files) -> None:
    """Without a store, a second start says that it created a context while that of the first is still billed."""
    run(*files.argv)
    old = files.answers()[0]["context_id"]
    files.ask(SOURCE, '"four"')
    done = run(*files.argv)
    new = files.answers()[-1]["context_id"]
    note, *_ = done.err.splitlines()
    assert note.startswith(
        f"created {new}; the storage of {old}, from an earlier start, is billed for up to 24.0 h more"
    )
    assert "--store FILE" in note


def test_an_old_context_that_ended_is_not_mentioned(peer: Hostile, run: Run, files: Files) -> None:
    """A context that ended, and one found in the store, need no remark."""
    peer.plays([answer(CONTEXT)], *[[answer()]] * 4, [answer(CONTEXT)], [answer()])
    run(*files.argv, "--store", str(files.store))
    files.ask(SOURCE, '"four"')
    assert "earlier start" not in run(*files.argv, "--store", str(files.store)).err
    files.out.write_text(files.out.read_text().replace('"time": 1', '"time": '))
    files.ask(SOURCE, '"four"', '"five"')
    done = run(*files.argv)
    assert (done.code, "earlier start" in done.err) == (0, False)


def test_no_room(service: Any, run: Run, files: Files) -> None:
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


def test_fresh(service: Any, run: Run, files: Files) -> None:
    """After a change of the prefix, `--fresh` asks all questions again and keeps the old answers beside the new."""
    run(*files.argv)
    old = files.out.read_bytes()
    files.prefix.write_text("# Manual\nThe warranty is three years.\n")
    refused = run(*files.argv)
    assert refused.code == 2
    assert "was written for a different prefix: " in refused.err
    assert "--fresh" in refused.err
    assert files.out.read_bytes() == old
    done = run(*files.argv, "--fresh")
    assert done.code == 0
    assert f"{files.out} is now {files.out}.1\n" in done.err
    assert files.out.with_name("answers.jsonl.1").read_bytes() == old
    assert [one["line"] for one in files.answers()] == [1, 3, 4]
    assert run(*files.argv).code == 0


def test_fresh_with_bad_questions(peer: Hostile, run: Run, files: Files) -> None:
    """Nothing is set aside while a question is bad."""
    files.out.write_text('{"line": 1, "answer": "old"}\n')
    files.ask("5")
    assert run(*files.argv, "--fresh").code == 2
    assert files.out.read_text() == '{"line": 1, "answer": "old"}\n'
    assert [path.name for path in files.out.parent.glob("answers*")] == ["answers.jsonl"]
