"""`ctxcache map` as a whole: options, exit codes, Ctrl-C."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ctxcache.gateway import Gateway, Prompt

from ..hostile import CONTEXT, Hostile, answer, refusal
from .conftest import KEY, MODEL, PATIENCE, CuedEngine, Files

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_answers_each_question(service: Any, run: Run, files: Files) -> None:
    """Each question gets one line with number, answer, usage and ids; the summary goes to stderr."""
    done = run(*files.argv)
    assert done.code == 0, done.err
    assert done.out == ""
    answers = files.answers()
    assert [one.pop("request_id") is not None for one in answers] == [True] * 3
    assert [one.pop("usage")["prompt_tokens_details"]["cached_tokens"] > 0 for one in answers] == [True] * 3
    hashes = {one.pop("question_hash") for one in answers}
    assert len(hashes) == 3
    assert {one.pop("model") for one in answers} == {MODEL}
    assert len({one.pop("prefix_hash") for one in answers}) == 1
    (context_id,) = {one.pop("context_id") for one in answers}
    assert all(abs(one.pop("time") - time.time()) < 60 for one in answers)
    ((create,),) = [created for one in answers if (created := one.pop("created", None))]
    assert (create["context_id"], create["ttl"]) == (context_id, 86400)
    assert create["usage"]["prompt_tokens"] > 0
    assert answers == [
        {"line": 1, "answer": "echo: one ", "finish_reason": "stop"},
        {"line": 3, "id": "q-2", "answer": "echo: two ", "finish_reason": "stop"},
        {"line": 4, "id": 3, "answer": "echo: three ", "finish_reason": "stop"},
    ]
    count, usage = done.err.splitlines()
    assert count == f"3 of 3 answers in {files.out} (3 new)"
    assert "cached" in usage


def test_sends_what_was_given_and_no_more(peer: Hostile, run: Run, files: Files) -> None:
    """The prefix is created once, each question sent alone; options are sent under the service's names."""
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
            "stream": False,
        },
    ]


def test_a_store_shares_the_context(peer: Hostile, run: Run, files: Files) -> None:
    """With `--store` the next start finds the context again."""
    files.ask('"one"')
    peer.plays([answer(CONTEXT)], [answer()], [answer()])
    assert run(*files.argv, "--store", str(files.store)).code == 0
    files.out.unlink()
    assert run(*files.argv, "--store", str(files.store)).code == 0
    assert [post.json.get("mode") for post in peer.posts] == ["common_prefix", None, None]


def test_help(run: Run) -> None:
    """The help fits into 80 columns, and loads neither aiohttp nor rich nor cattrs."""
    shown = run("map", "--help")
    assert shown.code == 0
    assert "examples:\n  ctxcache map" in shown.out
    assert max(map(len, shown.out.splitlines())) < 80
    program = "import sys; from ctxcache.cli import main; main(['map', '--help']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for module in ("aiohttp", "rich", "cattrs", "ctxcache.managed"):
        assert f"'{module}'" not in modules.splitlines()[-1]


def test_nothing_left_to_do(peer: Hostile, run: Run, files: Files) -> None:
    """With all questions answered, nothing is sent and nothing is written."""
    files.ask('"one"')
    peer.plays([answer(CONTEXT)], [answer()])
    run(*files.argv)
    before = files.out.read_bytes()
    done = run(*files.argv)
    assert (done.code, done.err) == (0, f"1 of 1 answers in {files.out} (0 new)\n")
    assert files.out.read_bytes() == before
    assert len(peer.posts) == 2


def test_zeros_after_the_last_answer(service: Any, run: Run, files: Files) -> None:
    """Zeros that a power cut left at the end are cut off, although there is nothing left to ask."""
    run(*files.argv)
    whole = files.out.read_bytes()
    files.out.write_bytes(whole + bytes(4096))
    assert run(*files.argv).code == 0
    assert files.out.read_bytes() == whole


def test_no_context_no_questions(peer: Hostile, run: Run, files: Files) -> None:
    """If the prefix cannot be created, that is the only error, and no question is asked."""
    peer.plays([refusal(404, "ModelNotOpen", "no such model")])
    failed = run(*files.argv)
    assert (failed.code, failed.err.count("\n")) == (1, 1)
    assert "404 ModelNotOpen" in failed.err
    assert len(peer.posts) == 1
    assert files.answers() == []


def test_stopped_by_ctrl_c(service: Any, run: Run, on_terminal: Callable[..., Any], files: Files) -> None:
    """Ctrl-C ends the command with 130; the answers so far are in the file, and the next start does the rest."""
    files.ask('"one"', '"endless"')
    command = on_terminal(*files.argv, "--concurrency", "2")
    command.expect("1/2")
    command.type("\x03")
    command.expect(f"stopped with 1 of 2 answers in {files.out}"[:70])
    command.expect(" tokens in (")
    assert command.wait() == 130
    assert [one["line"] for one in files.answers()] == [1]
    again = on_terminal(*files.argv, "--concurrency", "2")
    again.expect("0/1")
    again.type("\x03")
    assert again.wait() == 130


def test_nobody_reads_the_summary(service: Any, spawn: Spawn, files: Files) -> None:
    """A closed stdout or a closed pipe does not stop the answers from being written."""
    shell = 'exec "$0" -m ctxcache "$@" --json >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", shell, sys.executable, *files.argv], check=False).returncode == 0
    assert len(files.answers()) == 3
    ours, theirs = os.pipe()
    os.close(ours)
    process = spawn(*files.argv, "--json", stdout=theirs)
    os.close(theirs)
    assert process.wait(20) == 141


def test_signal(thread: Any, run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT while an answer is awaited ends the command with 130 and a summary; the store is closed."""

    class Interrupting:
        """Answers the first question, and interrupts at the second."""

        async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
            """Write a reply, or none."""
            if prompt.question[-1].content == "two":
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
            yield "Yes"

    gateway = Gateway(engine=Interrupting(), api_key=KEY)
    thread.run(gateway.start())
    try:
        for name, value in (("BASE_URL", gateway.base_url), ("API_KEY", KEY), ("MODEL", MODEL)):
            monkeypatch.setenv(f"CTXCACHE_{name}", value)
        prices = ("--prices", "input=1,cached=1,output=1,storage=0.01")
        stopped = run(*files.argv, "--concurrency", "1", "--store", str(files.store), *prices)
    finally:
        thread.run(gateway.aclose())
    assert stopped.code == 130
    lines = stopped.err.splitlines()
    assert lines[0] == f"stopped with 1 of 3 answers in {files.out}; start it again for the rest"
    assert lines[2].startswith("1 call cost ")


def test_outlasts_an_outage(thread: Any, spawn: Spawn, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the service is away, the questions wait for `--retry-for`, and the log has one line for begin and end."""
    files.ask('"one"', '"endless two"', '"three"')
    first = Gateway(engine=CuedEngine(), api_key=KEY, _leave_seconds=0)
    thread.run(first.start())
    second = Gateway(api_key=KEY, port=first.port)
    for name, value in (("BASE_URL", first.base_url), ("API_KEY", KEY), ("MODEL", MODEL)):
        monkeypatch.setenv(f"CTXCACHE_{name}", value)
    argv = ["map", "--prefix", str(files.prefix), "--questions", str(files.questions), "--out", "-"]
    process = spawn(*argv, "--concurrency", "1", "--retry-for", "1m")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["line"] == 1
    thread.run(first.aclose())
    told = []
    while not told or "no connection" not in told[-1]:
        told.append(process.stderr.readline())
        assert told[-1], told
    assert told[-1].startswith("ctxcache: map: no connection, all questions wait for up to 60 s: cannot connect")
    thread.run(second.start())
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        thread.run(second.aclose())
    assert process.returncode == 0, err
    assert sorted(json.loads(line)["line"] for line in out.splitlines()) == [2, 3]
    assert (err.count("no connection"), err.count("connected again after")) == (0, 1)


def test_set_aside(service: Any, run: Run, files: Files) -> None:
    """`--fresh` says where the old answers are."""
    run(*files.argv)
    done = run(*files.argv, "--fresh", "--temperature", "0.5")
    assert done.code == 0
    assert done.err.startswith(f"{files.out} is now {files.out}.1\n")


def test_ctrl_c_with_prices(service: Any, on_terminal: Callable[..., Any], files: Files) -> None:
    """Ctrl-C reports the cost so far."""
    files.ask('"one"', '"endless"')
    command = on_terminal(*files.argv, "--prices", "input=1,cached=1,output=1")
    command.expect("1/2")
    command.type("\x03")
    command.expect("1 call cost ")
    assert command.wait() == 130


def test_many_bad_lines(peer: Hostile, run: Run, files: Files) -> None:
    """The first 20 bad lines are listed, and the others counted."""
    files.ask(*["{}"] * 22)
    refused = run(*files.argv)
    assert (refused.code, refused.err.count("\n")) == (2, 21)
    assert refused.err.endswith("ctxcache: and 2 more bad lines\n")
    assert peer.posts == []


def test_plain_text(service: Any, run: Run, files: Files) -> None:
    """A file of plain text is recognised and refused with the way to read it."""
    files.ask("one", "", "two and three")
    refused = run(*files.argv)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "The file looks like plain text: use --format text" in refused.err
    assert run(*files.argv, "--format", "text").code == 0
    assert [(one["line"], one["answer"]) for one in files.answers()] == [(1, "echo: one "), (3, "echo: two and three ")]


def test_csv(service: Any, run: Run, files: Files) -> None:
    """A CSV file is recognised and refused with the way to read it; its rows have ids and options."""
    files.ask("id,question,max_tokens", 'a,"one, and two",', "b,three,1")
    refused = run(*files.argv)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "The file looks like CSV: use --format csv" in refused.err
    assert run(*files.argv, "--format", "csv").code == 0
    found = [(one["id"], one["answer"], one["finish_reason"]) for one in files.answers()]
    assert found == [("a", "echo: one, and two ", "stop"), ("b", "echo", "length")]


def test_from_stdin_to_stdout(service: Any, run: Run, files: Files) -> None:
    """With `-` the questions come from stdin and the answers go to stdout, with their questions if wanted."""
    files.ask()
    argv = ["map", "--prefix", str(files.prefix), "--questions", "-", "--out", "-", "--with-questions"]
    done = run(*argv, stdin='"eins"\n"zwölf"\n'.encode())
    assert done.code == 0, done.err
    answers = {one["question"]: one["answer"] for one in map(json.loads, done.out.splitlines())}
    assert answers == {"eins": "echo: eins ", "zwölf": "echo: zwölf "}
    assert done.err.startswith("2 of 2 answers in stdout (2 new)\n")


def test_reader_that_leaves(service: Any, spawn: Spawn, files: Files) -> None:
    """`ctxcache map --out - | head -1` ends when the pipe is closed."""
    files.ask_many(200)
    argv = ["map", "--prefix", str(files.prefix), "--questions", str(files.questions), "--out", "-"]
    process = spawn(*argv, "--concurrency", "1")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["line"] == 1
    process.stdout.close()
    assert process.wait(20) == 141


def test_answers_on_a_terminal(service: Any, on_terminal: Callable[..., Any], files: Files) -> None:
    """Answers on a terminal leave no room for a bar."""
    argv = ["map", "--prefix", str(files.prefix), "--questions", str(files.questions), "--out", "-"]
    command = on_terminal(*argv)
    assert command.wait() == 0
    assert "━" not in command.shown
    assert command.shown.count('"answer": ') == 3


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--questions", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("--questions", "."), ".: Is a directory"),
        (("--prefix", "none.md"), "none.md: No such file or directory"),
        (("--prefix", "-"), "-: the prefix is empty"),
        (("--out", "no/such/folder"), "no/such/folder: No such file or directory"),
        (("--out", os.devnull), f"{os.devnull}: not a regular file"),
        (("--concurrency", "0"), "'0' is not a whole number from 1 up"),
        (("--retry-for", "soon"), "'soon' is not a duration"),
        (("--ttl", "60"), "ttl must be a whole number in [3600, 604800], got 60"),
        (("--temperature", "3"), "temperature must be a number in [0, 2], got 3.0"),
        (("--store", ""), "path must be the path of a file"),
        (("--prefix", "-", "--questions", "-"), "stdin can be read only once: give a file for --prefix or --questions"),
        (("--out", "-", "--json"), "stdout cannot take both answers and summary: give a file for --out"),
        (("--format", "xml"), "invalid choice: 'xml'"),
        (("--prices", "input=1"), "the price of cached is missing"),
        (("--prices", "input=-1,cached=1,output=1"), "'input=-1' is not a price"),
        (("--prices", "input=1,input=1"), "'input=1' is not a price"),
        (("--prices", "inputs=1"), "'inputs=1' is not a price"),
        (("--prices", "input"), "'input' is not a price"),
    ],
)
def test_bad_usage(peer: Hostile, run: Run, files: Files, argv: tuple[str, ...], told: str) -> None:
    """Bad options are reported in one line, with exit code 2, and nothing is sent."""
    refused = run(*files.argv, *argv)
    assert (refused.code, refused.out) == (2, "")
    assert told in refused.err
    assert refused.err.count("\n") == 1
    assert peer.posts == []
