"""`ctxcache map`: many questions, their answers in a file, and the rest at the next start."""

import fcntl
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxcache import ChatCompletion, InvalidInputError, Usage
from ctxcache.cli import map as command
from ctxcache.cli import progress
from ctxcache.cli.journal import Journal
from ctxcache.cli.questions import NumberedQuestion, read_questions
from ctxcache.gateway import Gateway, Prompt
from ctxcache.models import AssistantMessage, Choice

from ..hostile import COMPLETION, CONTEXT, Hostile, answer, refusal
from .conftest import ESCAPES

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]
SOURCE = '"one"\n\n{"question": "two", "id": "q-2"}\r\n{"messages": [{"role": "user", "content": "three"}], "id": 3}'


class Files:
    """A prefix, questions and a place for answers, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "manual.md"
        self.questions = folder / "q.jsonl"
        self.out = folder / "answers.jsonl"
        self.store = folder / "contexts.db"
        self.prefix.write_text("# Manual\nThe warranty is two years.\n")
        self.ask(SOURCE)

    def ask(self, *questions: str) -> None:
        """Write the file of questions, as lines."""
        self.questions.write_bytes("\n".join(questions).encode())

    def ask_many(self, count: int) -> None:
        """Write so many questions, each another."""
        self.ask(*(json.dumps(f"question {number}") for number in range(1, count + 1)))

    @property
    def argv(self) -> tuple[str, ...]:
        """The command with its three files."""
        return (
            *("map", "--prefix", str(self.prefix)),
            *("--questions", str(self.questions), "--out", str(self.out)),
        )

    def answers(self) -> list[dict[str, Any]]:
        """What stands in the file of answers, by line of the question; all of it must be whole lines."""
        text = self.out.read_text()
        assert not text or text.endswith("\n")
        return sorted((json.loads(line) for line in text.splitlines()), key=lambda one: one["line"])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Three questions over a short manual."""
    return Files(tmp_path)


# --- what it does -----------------------------------------------------------------------------------------------------


def test_answers_each_question(service: Any, run: Run, files: Files) -> None:
    """Each question has one line: which it was, the answer, its usage and ids. What is said about it is on stderr."""
    done = run(*files.argv)
    assert done.code == 0, done.err
    assert done.out == ""
    answers = files.answers()
    assert [one.pop("request_id") is not None for one in answers] == [True] * 3
    assert [one.pop("usage")["prompt_tokens_details"]["cached_tokens"] > 0 for one in answers] == [True] * 3
    hashes = {one.pop("question_hash") for one in answers}
    assert len(hashes) == 3
    assert answers == [
        {"line": 1, "answer": "echo: one ", "finish_reason": "stop"},
        {"line": 3, "id": "q-2", "answer": "echo: two ", "finish_reason": "stop"},
        {"line": 4, "id": 3, "answer": "echo: three ", "finish_reason": "stop"},
    ]
    count, usage = done.err.splitlines()
    assert count == f"3 of 3 answers in {files.out} (3 new)"
    assert "cached" in usage


def test_sends_what_was_given_and_no_more(peer: Hostile, run: Run, files: Files) -> None:
    """The prefix is created once, each question sent alone; options go out under the service's names."""
    files.ask('"hi"')
    peer.plays([answer(CONTEXT)], [answer()])
    done = run(*files.argv, "--ttl", "1h", "--max-tokens", "5", "--temperature", "0.2", "--top-p", "0.9")
    assert done.code == 0, done.err
    base = {"model": "Doubao-1.5-pro-32k"}
    assert [post.json for post in peer.posts] == [
        {
            **base,
            "messages": [{"role": "system", "content": files.prefix.read_text()}],
            "mode": "common_prefix",
            "ttl": 3600,
        },
        {
            **base,
            "context_id": "ctx-1",
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0.2,
            "top_p": 0.9,
            "max_tokens": 5,
        },
    ]


def test_summary_as_json(service: Any, run: Run, files: Files) -> None:
    """`--json` prints the summary as one object on stdout, with the cost where prices are given; stderr is empty."""
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
    """With prices, the last line says what the run cost, and what it would have cost without a context."""
    told = run(*files.argv, "--prices", "input=1,cached=0.25,output=2").err.splitlines()[-1]
    assert told.startswith("3 calls cost ")
    assert "without a context" in told


def test_a_store_shares_the_context(peer: Hostile, run: Run, files: Files) -> None:
    """With `--store` the next start finds the context again."""
    files.ask('"one"')
    peer.plays([answer(CONTEXT)], [answer()], [answer()])
    assert run(*files.argv, "--store", str(files.store)).code == 0
    files.out.unlink()
    assert run(*files.argv, "--store", str(files.store)).code == 0
    assert [post.json.get("mode") for post in peer.posts] == ["common_prefix", None, None]


def test_answers_that_are_hard_to_write(peer: Hostile, run: Run, files: Files) -> None:
    """An answer may hold anything JSON can: it is on one line, readable, and the same after reading it back."""
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


def test_help(run: Run) -> None:
    """The help fits in 80 columns, and takes neither aiohttp nor rich nor cattrs."""
    shown = run("map", "--help")
    assert shown.code == 0
    assert "examples:\n  ctxcache map" in shown.out
    assert max(map(len, shown.out.splitlines())) < 80
    program = "import sys; from ctxcache.cli import main; main(['map', '--help']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for module in ("aiohttp", "rich", "cattrs", "ctxcache.managed"):
        assert f"'{module}'" not in modules.splitlines()[-1]


# --- starting again ---------------------------------------------------------------------------------------------------


def test_nothing_left_to_do(peer: Hostile, run: Run, files: Files) -> None:
    """Where all is answered, nothing is sent and nothing is written."""
    files.ask('"one"')
    peer.plays([answer(CONTEXT)], [answer()])
    run(*files.argv)
    before = files.out.read_bytes()
    done = run(*files.argv, "--prices", "input=1,cached=1,output=1")
    assert (done.code, done.err) == (0, f"1 of 1 answers in {files.out} (0 new)\n")
    assert files.out.read_bytes() == before
    assert len(peer.posts) == 2


def test_does_the_rest(service: Any, run: Run, files: Files) -> None:
    """Questions that were appended, or whose answers were taken out, are asked; the others are not."""
    run(*files.argv)
    kept = files.out.read_text().splitlines(keepends=True)[1]
    files.out.write_text(kept)
    files.ask(SOURCE, '"four"')
    done = run(*files.argv)
    assert done.code == 0
    assert files.out.read_text().startswith(kept)
    assert [one["line"] for one in files.answers()] == [1, 3, 4, 5]
    assert f"4 of 4 answers in {files.out} (3 new)\n" in done.err


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
    """Wherever the file ends, what is not a whole line is dropped and all before it is kept."""
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


class KillingEngine:
    """Answers, and at the n-th question lets the killer loose."""

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
    """Killed over and over, and started again until it is done, it writes each answer once and whole."""
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


def test_stopped_by_ctrl_c(service: Any, run: Run, on_terminal: Callable[..., Any], files: Files) -> None:
    """Ctrl-C ends it with 130; what was answered is in the file, and the next start does the rest."""
    files.ask('"one"', '"endless"')
    command = on_terminal(*files.argv, "--concurrency", "2")
    command.expect("1/2")
    command.type("\x03")
    command.expect(f"stopped with 1 of 2 answers in {files.out}"[:70])
    assert command.wait() == 130
    assert [one["line"] for one in files.answers()] == [1]
    again = on_terminal(*files.argv, "--concurrency", "2")
    again.expect("0/1")
    again.type("\x03")
    assert again.wait() == 130


# --- what is refused --------------------------------------------------------------------------------------------------


def test_one_process_a_file(peer: Hostile, run: Run, files: Files) -> None:
    """While one process writes the answers, another one is refused before it sends anything."""
    with files.out.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = run(*files.argv)
    assert (refused.code, refused.err) == (2, f"ctxcache: {files.out}: another process writes it\n")
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
    """Where a question that was answered is another one now, or gone, that is said, and nothing is touched."""
    run(*files.argv)
    before = files.out.read_bytes() + b'{"line": 4, "torn'
    files.out.write_bytes(before)
    files.ask(*changed)
    refused = run(*files.argv)
    assert refused.code == 2
    assert refused.err.startswith(f"ctxcache: {files.out}: ")
    assert "the questions were changed" in refused.err
    assert files.out.read_bytes() == before


@pytest.mark.parametrize("same", ['"two"', '{"messages": [{"content": "two", "role": "user"}], "note": 1}'])
def test_the_same_question_in_other_words(service: Any, run: Run, files: Files, same: str) -> None:
    """How a question is written down does not matter, nor do fields that are not sent."""
    run(*files.argv)
    files.ask('"one"', " ", same, '"three"')
    assert run(*files.argv).code == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"# a manual\n", "line 1 is no answer that `ctxcache map` wrote"),
        (b"# a manual", "line 1 is no answer that `ctxcache map` wrote"),
        (b"[1]\n", "line 1 is no answer"),
        (b'{"line": 0, "question_hash": "x"}\n', "line 1 is no answer"),
        (b'{"line": true, "question_hash": "x"}\n', "line 1 is no answer"),
        (b'{"line": 1, "question_hash": 5}\n', "line 1 is no answer"),
        (b"[" * 100_000 + b"\n", "line 1 is no answer"),
        (b'{"line": 1, "question_hash": "x"}\n' * 2, "line 2 answers the question of line 1, again"),
        (b'{"line": 9999999999999, "question_hash": "x"}\n', "there is no such line: the questions were changed"),
    ],
)
def test_a_file_of_something_else(peer: Hostile, run: Run, files: Files, content: bytes, told: str) -> None:
    """A file that holds something else than answers is refused, and stays as it is."""
    files.out.write_bytes(content)
    refused = run(*files.argv)
    assert refused.code == 2
    assert told in refused.err
    assert files.out.read_bytes() == content
    assert peer.posts == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"How long?", "not JSON: Expecting value (column 1)"),
        (b"\xff", "not UTF-8 text"),
        (b"5", 'a question is a JSON string, or an object with "question"'),
        (b"{}", "a question is a JSON string"),
        (b'{"question": "a", "messages": []}', "a question is a JSON string"),
        (b'{"question": 5}', "content must be a string, got 5"),
        (b'{"question": " "}', "the question is empty"),
        (b'{"messages": []}', "messages must be a list of at least one message, got []"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "'assistant', got 'robot'"),
        (b'{"question": "a", "id": [1]}', "an id is a string or a number"),
        (b'"\\ud800"', "it holds what cannot be sent as UTF-8"),
        (b"1" * 5000, "not readable as JSON: "),
    ],
)
def test_bad_questions(peer: Hostile, run: Run, files: Files, line: bytes, told: str) -> None:
    """A line that is no question is named before anything is sent, however far down it is."""
    files.questions.write_bytes(b'\xef\xbb\xbf"good"\n' + b'"good"\n' * 99 + b"\n" + line)
    refused = run(*files.argv)
    assert refused.code == 2
    assert refused.err.startswith(f"ctxcache: {files.questions}, line 102: ")
    assert told in refused.err
    assert refused.err.count("\n") == 1
    assert peer.posts == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--questions", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("--questions", "."), ".: Is a directory"),
        (("--prefix", "none.md"), "none.md: No such file or directory"),
        (("--prefix", "-"), "-: the prefix is empty"),
        (("--out", "no/such/folder"), "no/such/folder: No such file or directory"),
        (("--out", os.devnull), f"{os.devnull}: not a file that can be written"),
        (("--concurrency", "0"), "0 is not a whole number from 1 up"),
        (("--ttl", "60"), "ttl must be a whole number in [3600, 604800], got 60"),
        (("--temperature", "3"), "temperature must be a number in [0, 2], got 3.0"),
        (("--store", ""), "path must be the path of a file"),
        (("--prices", "input=1"), "the price of cached is missing"),
        (("--prices", "input=-1,cached=1,output=1"), "'input=-1' is no price"),
        (("--prices", "input=1,input=1"), "'input=1' is no price"),
        (("--prices", "inputs=1"), "'inputs=1' is no price"),
        (("--prices", "input"), "'input' is no price"),
    ],
)
def test_bad_usage(peer: Hostile, run: Run, files: Files, argv: tuple[str, ...], told: str) -> None:
    """What is wrong with the options is said in one line, with exit code 2, and nothing is sent."""
    refused = run(*files.argv, *argv)
    assert (refused.code, refused.out) == (2, "")
    assert told in refused.err
    assert refused.err.count("\n") == 1
    assert peer.posts == []


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_listed_and_tried_again(peer: Hostile, run: Run, files: Files) -> None:
    """What failed is listed with its line, is not in the file, makes exit code 1, and is asked at the next start."""
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


def test_the_list_is_bounded(peer: Hostile, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many failures the last ones are listed, and the others counted; `--json` has them, too."""
    monkeypatch.setattr(command, "_LISTED", 2)
    peer.plays([answer(CONTEXT)], *[[refusal(400)]] * 3)
    failed = run(*files.argv, "--concurrency", "1", "--json")
    assert failed.code == 1
    assert [line[:24] for line in failed.err.splitlines()] == [
        "ctxcache: line 3: BadReq",
        "ctxcache: line 4: BadReq",
        "ctxcache: and 1 more fai",
    ]
    told = json.loads(failed.out)
    assert told["failed"] == 3
    assert [(one["line"], one["error"]) for one in told["failures"]] == [(3, "BadRequestError"), (4, "BadRequestError")]


@pytest.mark.parametrize(("status", "code"), [(401, ""), (429, "QuotaExceeded")])
def test_what_every_question_would_meet_stops_it(peer: Hostile, run: Run, files: Files, status: int, code: str) -> None:
    """A bad key or an empty quota stops it: the rest is not asked, and waits for the next start."""
    peer.plays([answer(CONTEXT)], [answer()], [refusal(status, code)])
    files.ask_many(500)
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert "further questions would fail like this one: the rest was not asked\n" in failed.err
    assert len(peer.posts) <= 5  # one may have been begun before the answer was looked at
    assert len(files.answers()) == 1


def test_a_service_that_is_down_stops_it(
    peer: Hostile, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one question after the other fails, the rest is left for the next start."""
    monkeypatch.setattr(command, "_IN_A_ROW", 3)
    peer.plays([answer(CONTEXT)], *[[refusal(400)]] * 10)
    files.ask_many(500)
    failed = run(*files.argv, "--concurrency", "1")
    assert failed.code == 1
    assert "3 questions failed in a row: the rest was not asked\n" in failed.err
    assert len(peer.posts) <= 7


def test_no_context_no_questions(peer: Hostile, run: Run, files: Files) -> None:
    """Where the prefix cannot be created, that is the one error, and no question is asked."""
    peer.plays([refusal(404, "ModelNotOpen", "no such model")])
    failed = run(*files.argv)
    assert (failed.code, failed.err.count("\n")) == (1, 1)
    assert "404 ModelNotOpen" in failed.err
    assert len(peer.posts) == 1
    assert files.answers() == []


def test_no_room_for_the_answers(service: Any, run: Run, files: Files) -> None:
    """When the file cannot grow any more, that ends it, with exit code 1; what stands there is whole lines."""
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
    """Where the platform has no such locks, it does without."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert run(*files.argv).code == 0


def test_nobody_reads_the_summary(service: Any, spawn: Spawn, files: Files) -> None:
    """With a closed stdout or a closed pipe behind it the answers are written all the same."""
    shell = 'exec "$0" -m ctxcache "$@" --json >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", shell, sys.executable, *files.argv], check=False).returncode == 0
    assert len(files.answers()) == 3
    ours, theirs = os.pipe()
    os.close(ours)
    process = spawn(*files.argv, "--json", stdout=theirs)
    os.close(theirs)
    assert process.wait(20) == 141


# --- progress ---------------------------------------------------------------------------------------------------------


def test_a_line_now_and_then(service: Any, run: Run, files: Files) -> None:
    """Where stderr is no terminal, many questions have a line for each tenth, few have none."""
    files.ask_many(200)
    told = run(*files.argv).err.splitlines()
    assert [line.partition(",")[0] for line in told[:9]] == [f"{done} of 200" for done in range(20, 200, 20)]
    assert all(line.endswith(" % cached") for line in told[:9])
    assert len(told) == 11


def test_a_line_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines say how many failed, and nothing of a cache nobody knows of."""
    with progress.show_progress(progress.Terminal(), 100) as tell:
        tell(10, 3, None)
    assert capsys.readouterr().err == "10 of 100, 3 failed\n"


def test_a_bar_on_a_terminal(peer: Hostile, on_terminal: Callable[..., Any], files: Files) -> None:
    """On a terminal there is a bar with rate, cached share and time left; warnings stand above it; then it is gone."""
    usage = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 9}}
    slow = refusal(429, "RateLimitExceeded", "slow", "Retry-After: 0")
    good = answer({**COMPLETION, "usage": usage})
    peer.plays([answer(CONTEXT)], [good], [slow], [refusal(400)], [good])
    command = on_terminal(*files.argv, "--concurrency", "1")
    assert command.wait() == 1
    shown = ESCAPES.sub("", command.shown)
    for told in ("/3", "/s", "90 % cached, 1 failed", "left"):
        assert told in shown
    assert "\rctxcache: map: RateLimitError, at most 1 at once, the next in " in shown
    assert re.search(r"[\r\n]ctxcache: line [34]: BadRequestError: 400", shown)


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


# --- questions --------------------------------------------------------------------------------------------------------


def test_questions_are_read_one_by_one(files: Files) -> None:
    """A question is read when it is wanted: what stands below it does not matter until then."""
    files.ask('"good"', "bad")
    items = read_questions(str(files.questions))
    first = next(items)
    assert (first.line, first.messages[0].content) == (1, "good")
    assert first == NumberedQuestion(1, first.messages, first.hash)
    with pytest.raises(InvalidInputError, match=r"q\.jsonl, line 2: not JSON"):
        next(items)
