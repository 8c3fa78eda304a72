"""`ctxcache create`: messages in, an id out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..hostile import CONTEXT, Hostile, answer

Run = Callable[..., Any]


def test_prints_the_id_alone(service: Any, run: Run) -> None:
    """The id is all of stdout, for `id=$(ctxcache create …)`."""
    made = run("create", "--system", "Be brief", "--ttl", "1h")
    assert made.code == 0
    assert made.err == ""
    assert service.messages(made.out.removesuffix("\n")) == [("system", "Be brief")]


def test_messages_in_the_order_given(service: Any, run: Run, tmp_path: Path) -> None:
    """Options, files and stdin are mixed, and sent in their order; files as they are."""
    (tmp_path / "manual.md").write_text("# Manual\n")
    (tmp_path / "past.jsonl").write_text('{"role": "user", "content": "1"}\n{"role": "assistant", "content": "2"}\n')
    texts = ("--user", "first", "--system-file", str(tmp_path / "manual.md"), "--assistant", "yes")
    made = run("create", *texts, "--messages", str(tmp_path / "past.jsonl"), "--user-file", "-", stdin="é\n".encode())
    assert made.code == 0, made.err
    assert service.messages(made.out.strip()) == [
        ("user", "first"),
        ("system", "# Manual\n"),
        ("assistant", "yes"),
        ("user", "1"),
        ("assistant", "2"),
        ("user", "é\n"),
    ]


def test_sends_what_was_given_and_no_more(peer: Hostile, run: Run) -> None:
    """Only the options on the command line are sent, under the service's names."""
    peer.plays([answer(CONTEXT)], [answer(CONTEXT)])
    run("create", "--system", "x")
    run("create", "--user", "x", "--model", "m", "--ttl", "7d", "--truncation", "last_history_tokens=8192")
    assert [post.json for post in peer.posts] == [
        {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "system", "content": "x"}], "mode": "session"},
        {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "mode": "session",
            "ttl": 604800,
            "truncation_strategy": {"type": "last_history_tokens", "last_history_tokens": 8192},
        },
    ]


def test_json_has_everything(peer: Hostile, run: Run) -> None:
    """`--json` prints one object: the service's answer with unknown fields, the request's fields, and the ids."""
    peer.plays([answer({"id": "ctx-1", "ttl": "3600", "new": {"field": 1}}, "X-Request-Id: req-1")])
    made = run("create", "--system", "x", "--mode", "common_prefix", "--json")
    assert made.code == 0
    told = json.loads(made.out)
    assert told.pop("client_request_id")
    assert told == {
        "id": "ctx-1",
        "model": "Doubao-1.5-pro-32k",
        "mode": "common_prefix",
        "ttl": 3600,
        "new": {"field": 1},
        "request_id": "req-1",
    }
    assert made.out.count("\n") == 1


@pytest.mark.parametrize("id_", ["ctx-1\nctx-2", "ctx-\x1b[2K", "ctx-\x9b", "ctx-\u202e1"])
def test_id_with_control_characters(peer: Hostile, run: Run, id_: str) -> None:
    """An id that could forge a line is not printed raw, and JSON escapes it."""
    peer.plays([answer({**CONTEXT, "id": id_})], [answer({**CONTEXT, "id": id_})])
    failed = run("create", "--system", "x")
    assert (failed.code, failed.out) == (1, "")
    assert f"its id holds control characters: {json.dumps(id_)}" in failed.err
    assert failed.err.isascii()
    assert failed.err.count("\n") == 1
    made = run("create", "--system", "x", "--json")
    assert made.out.isascii()
    assert json.loads(made.out)["id"] == id_


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((), "no messages: give --system TEXT"),
        (("--system", "x", "--ttl", "60"), "ttl must be a whole number in [3600, 604800], got 60"),
        (("--system", "x", "--ttl", "soon"), "'soon' is not a duration; use 3600, 1h or 1h30m"),
        (("--system", "x", "--mode", "prefix"), "invalid choice: 'prefix'"),
        (("--system", "x", "--truncation", "none"), "or 'rolling_tokens', got 'none'"),
        (
            ("--system", "x", "--mode", "common_prefix", "--truncation", "rolling_tokens"),
            "must be left out where mode",
        ),
        (("--assistant", "x"), "messages[-1].role must be 'system' or 'user', got 'assistant'"),
        (("--system-file", "none.md"), "none.md: No such file or directory"),
        (("--system-file", "-", "--messages", "-"), "stdin: can be read only once"),
        (("--messages", "-"), "stdin, line 1: not JSON: "),
        (("--system", "\udcff"), "lone surrogates"),
        (
            ("--system", "x", "--base-url", "gateway.example/v1"),
            "base_url must be an http or https URL",
        ),
        (("--system", "x", "--api-key-file", "none.key"), "none.key: No such file or directory"),
        (("--sys", "x"), "unrecognized arguments: --sys x"),
    ],
)
def test_bad_usage(peer: Hostile, run: Run, argv: tuple[str, ...], told: str) -> None:
    """Bad options are reported in one line, with exit code 2, and nothing is sent."""
    failed = run("create", *argv, stdin=b"not json")
    assert failed.code == 2
    assert failed.out == ""
    assert failed.err.startswith("ctxcache: ")
    assert told in failed.err
    assert failed.err.count("\n") == 1
    assert peer.posts == []
