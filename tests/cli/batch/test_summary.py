"""The last words of a batch: failures, counts, usage, cost."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ...hostile import CONTEXT, Hostile, answer, refusal
from ..conftest import Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_failures_are_listed_and_tried_again(peer: Hostile, run: Run, files: Files) -> None:
    """A failure is listed with its line, makes exit code 1, and is asked again by the next start."""
    peer.plays([answer(CONTEXT)], [answer()], [refusal(400, "SensitiveContentDetected", "not that")], [answer()])
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert [one["line"] for one in files.answers()] == [1, 4]
    listed, count, _ = failed.err.splitlines()
    assert listed.startswith("ctxcache: line 3: BadRequestError: 400 SensitiveContentDetected: not that")
    assert count == f"2 of 3 answers in {files.out} (2 new), 1 failed: start it again to retry"
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
