"""One start of a batch: the rest is asked, failures are counted, hopeless batches stop."""

import os
import random
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache.gateway import Gateway, Prompt

from ...hostile import CONTEXT, Hostile, answer, refusal
from ..conftest import SOURCE, Files

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
