"""Progress: a bar on a terminal, lines elsewhere."""

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctxcache.cli.batch.progress import Lines, show_progress
from ctxcache.cli.terminal import Terminal

from ...hostile import COMPLETION, CONTEXT, Hostile, answer, refusal
from ..conftest import ESCAPES, Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_a_line_now_and_then(service: Any, run: Run, files: Files) -> None:
    """Without a terminal, many questions get a line for each tenth, few get none."""
    files.ask_many(200)
    told = run(*files.argv).err.splitlines()
    assert [line.partition(",")[0] for line in told[:9]] == [f"{done} of 200" for done in range(20, 200, 20)]
    assert all(line.endswith("% cached") for line in told[:9])
    assert len(told) == 11


async def test_a_line_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line counts the failures, and leaves out an unknown share of the cache."""
    async with show_progress(Terminal(), 100) as show:
        show(10, 3, None)
    assert capsys.readouterr().err == "10 of 100, 3 failed\n"


async def test_no_silence_longer_than_10_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten seconds after the last line there is another, however few results came meanwhile."""
    now, shown = 0.0, []
    results = {4: (3, 1, 0.5), 12: (20, 1, 0.5), 13: (21, 1, 0.5)}  # by second; the second one completes a tenth

    def look() -> None:
        shown.extend((now, line) for line in capsys.readouterr().err.splitlines())

    async def sleep(seconds: float) -> None:
        nonlocal now
        look()
        if now >= 32:
            raise BrokenPipeError
        for _ in range(int(seconds)):
            now += 1
            if now in results:
                lines(*results[int(now)])
            look()

    lines = Lines(Terminal(), 200, clock=lambda: now, sleep=sleep)
    await lines.watch()
    assert shown == [
        (10.0, "3 of 200, 1 failed, 50% cached"),
        (12.0, "20 of 200, 1 failed, 50% cached"),
        (22.0, "21 of 200, 1 failed, 50% cached"),
        (32.0, "21 of 200, 1 failed, 50% cached"),
    ]


def test_a_bar_on_a_terminal(peer: Hostile, on_terminal: Callable[..., Any], files: Files) -> None:
    """A terminal gets a bar with rate, cached share and time left, and warnings above the bar."""
    usage = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 9}}
    slow = refusal(429, "RateLimitExceeded", "slow", "Retry-After: 1")  # shorter pauses are no news
    good = answer({**COMPLETION, "usage": usage})
    peer.plays([answer(CONTEXT)], [good], [slow], [refusal(400)], [good])
    command = on_terminal(*files.argv, "--concurrency", "1")
    assert command.wait() == 1
    shown = ESCAPES.sub("", command.shown)
    for told in ("/3", "/s", "90% cached, 1 failed", "left"):
        assert told in shown
    assert "\rctxcache: map: RateLimitError, at most 1 at once, the next in " in shown
    assert re.search(r"[\r\n]ctxcache: line [34] \(id .+\): BadRequestError: 400", shown)


@pytest.fixture
def _no_rich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_COLOR", "1")
    return


@pytest.mark.usefixtures("_no_rich")
def test_plain_on_request(service: Any, on_terminal: Callable[..., Any], files: Files) -> None:
    """With `NO_COLOR` there is no bar."""
    command = on_terminal(*files.argv)
    assert command.wait() == 0
    assert "\x1b" not in command.shown
    assert command.shown.startswith("3 of 3 answers in ")
