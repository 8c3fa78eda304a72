"""`ctxcache chat` with one question."""

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ..hostile import COMPLETION, RESET, Hostile, answer, refusal, streamed

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def test_streams_the_answer_alone(context_id: str, run: Run) -> None:
    """The answer is all of stdout; the usage is one line on stderr."""
    told = run("chat", context_id, "How long?")
    assert told.code == 0
    assert told.out == "echo: How long? \n"
    assert told.err == "5 tokens in (2 cached + 3 new), 4 out\n"


def test_remembers_on_a_session_context(context_id: str, run: Run, service: Any) -> None:
    """Question and answer are in the context afterwards: the turn was sent once."""
    run("chat", context_id, "one")
    run("chat", context_id, "two")
    assert [content for _, content in service.messages(context_id)] == [
        "Be brief",
        "one",
        "echo: one ",
        "two",
        "echo: two ",
    ]


@pytest.mark.parametrize("argv", [(), ("-",)])
def test_question_piped_in(context_id: str, run: Run, argv: tuple[str, ...]) -> None:
    """Without a question on the command line, stdin is read, without the last line break."""
    assert run("chat", context_id, *argv, stdin="à\nla carte\n".encode()).out == "echo: à\nla carte \n"


@pytest.mark.parametrize("argv", [("--max-tokens", "9", "a question"), ("--max-tokens", "9", "--", "-q")])
def test_question_after_options(context_id: str, run: Run, argv: tuple[str, ...]) -> None:
    """Options may stand between the context and the question; after `--` it may begin with a dash."""
    assert run("chat", context_id, *argv).out == f"echo: {argv[-1]} \n"


def test_sends_what_was_given_and_no_more(peer: Hostile, run: Run) -> None:
    """Sampling options are sent under the service's names; no other option is sent."""
    peer.plays([streamed()], [streamed()])
    base = {
        "context_id": "ctx-1",
        "model": "Doubao-1.5-pro-32k",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sampling = ("--temperature", "0.2", "--top-p", "0.9", "--max-tokens", "5", "--stop", "a", "--stop", "b")
    run("chat", "ctx-1", "hi")
    run("chat", "ctx-1", "hi", *sampling, "--n", "2", "--presence-penalty", "-1.5", "--frequency-penalty", "2")
    assert [post.json for post in peer.posts] == [
        base,
        {
            **base,
            "temperature": 0.2,
            "top_p": 0.9,
            "max_tokens": 5,
            "stop": ["a", "b"],
            "n": 2,
            "presence_penalty": -1.5,
            "frequency_penalty": 2.0,
        },
    ]


def test_json_is_one_object(peer: Hostile, run: Run) -> None:
    """`--json` makes a plain call and prints the service's whole answer, with the ids, in one line."""
    peer.plays([answer({**COMPLETION, "new": "é"}, "X-Request-Id: req-1")])
    told = run("chat", "ctx-1", "hi", "--json")
    assert (told.code, told.err) == (0, "")
    printed = json.loads(told.out)
    assert printed.pop("client_request_id")
    assert printed == {**COMPLETION, "new": "é", "request_id": "req-1"}
    assert told.out.isascii()
    assert peer.posts[0].json["stream"] is False


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("hi", "--temperature", "3"), "temperature must be a number in [0, 2], got 3.0"),
        (("hi", "--top-p", "much"), "argument --top-p: invalid float value: 'much'"),
        (("hi", "--stop", "a", "--stop", "b", "--stop", "c", "--stop", "d", "--stop", "e"), "1 to 4 of them"),
        (("hi", "there"), "unrecognized arguments: there"),
        ((" ",), "the question is empty"),
        ((), "the question is empty"),
    ],
)
def test_bad_usage(peer: Hostile, run: Run, argv: tuple[str, ...], told: str) -> None:
    """Bad options are reported in one line, with exit code 2, and nothing is sent."""
    failed = run("chat", "ctx-1", *argv)
    assert failed.code == 2
    assert failed.out == ""
    assert failed.err.startswith("ctxcache: ")
    assert told in failed.err
    assert failed.err.count("\n") == 1
    assert peer.posts == []


def test_connection_refused(run: Run, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that cannot be reached is a failed call, exit code 1."""
    failed = run("chat", "ctx-1", "hi", "--base-url", "http://127.0.0.1:1/v1", "-v")
    assert failed.code == 1
    *retries, last = failed.err.splitlines()
    assert "cannot connect" in last
    assert all(line.startswith("ctxcache: ") for line in [*retries, last])


def test_key_is_never_printed(peer: Hostile, run: Run) -> None:
    """Neither an error that repeats the key nor the log shows it."""
    key = "sk-cli-0f4e1d2c3b5a69788796a5b4c3d2e1f0"
    peer.plays([refusal(401, "AuthenticationError", f"the key {key} is wrong")], [streamed()])
    shown = [run("chat", "ctx-1", "hi", "-v"), run("chat", "ctx-1", "hi", "-v")]
    assert [result.code for result in shown] == [1, 0]
    assert key not in "".join(result.out + result.err for result in shown)


def test_verbose_logs_the_call(peer: Hostile, run: Run) -> None:
    """`-v` logs the call on stderr, without content."""
    peer.plays([streamed()])
    told = run("chat", "ctx-1", "a secret question", "-v")
    assert told.out == "Once upon a time\n"
    assert "ctxcache: POST /context/chat/completions status=200 attempt=1 " in told.err
    assert "secret" not in told.err


def test_retries_are_told(peer: Hostile, run: Run) -> None:
    """A retry is reported on stderr without `-v`."""
    peer.plays([refusal(429, "RateLimitExceeded", "slow down", "Retry-After-Ms: 1")], [streamed()])
    told = run("chat", "ctx-1", "hi")
    assert (told.code, told.out) == (0, "Once upon a time\n")
    assert told.err.startswith("ctxcache: POST /context/chat/completions: RateLimitError, attempt 1 of 3, again in ")


def test_repeatable_is_told_to_the_session(peer: Hostile, run: Run) -> None:
    """A lost answer is retried only with `--repeatable`."""
    peer.plays([RESET], [RESET], [streamed()])
    assert run("chat", "ctx-1", "hi").code == 1
    assert len(peer.posts) == 1
    assert run("chat", "ctx-1", "hi", "--repeatable").code == 0
    assert len(peer.posts) == 3


def test_ctrl_c_ends_with_130(context_id: str, spawn: Spawn, service: Any) -> None:
    """SIGINT in an answer ends the command: exit code 130, no traceback, the context free."""
    process = spawn("chat", context_id, "endless\nstory", stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline() == "echo: endless\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "story \n"
    assert process.wait(20) == 130
    service.until_free(context_id)


def test_reader_that_leaves(context_id: str, spawn: Spawn, service: Any) -> None:
    """`ctxcache chat … | head -1` ends silently when the pipe is closed, and frees the context."""
    process = spawn("chat", context_id)
    streams = process.stdin, process.stdout, process.stderr
    question, answer, said = (stream for stream in streams if stream is not None)
    question.write("endless\n" + "word " * 20_000)
    question.close()
    assert answer.readline() == "echo: endless\n"
    answer.close()
    assert said.read() == ""
    assert process.wait(20) == 141
    service.until_free(context_id)
