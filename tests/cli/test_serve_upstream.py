"""`ctxcache serve --engine openai`, before a server in a thread."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ctxcache.cli import serve
from ctxcache.gateway.engines.upstream.asking import KINDS

from .test_serve import ask, exports_of

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]

KEY = "sk-of-the-upstream"


class Upstream(ThreadingHTTPServer):
    """A server with one model, that answers "Hi"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, Any]] = []
        self.listed: Any = {"data": [{"id": "qwen", "max_model_len": 500}]}
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Answers a request."""

    server: Upstream

    def do_GET(self) -> None:
        """List the models."""
        self._answer("application/json", json.dumps(self.server.listed).encode(), None)

    def do_POST(self) -> None:
        """Answer a chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
        events = [json.dumps({"id": "c", "choices": [choice]}), "[DONE]"]
        self._answer("text/event-stream", "".join(f"data: {event}\n\n" for event in events).encode(), body)

    def _answer(self, kind: str, data: bytes, body: Any) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A running server."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_serves_the_models_of_the_upstream(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    """Without `--model` the upstream's are served, with their windows; its key goes there and nowhere else."""
    monkeypatch.setenv(serve.UPSTREAM_KEY, KEY)
    server = spawn("serve", "--port", "0", "--engine", "openai", "--upstream", upstream.url, "-v")
    exports = exports_of(server)
    told = ask(run, monkeypatch, exports, "--model", "qwen")
    assert told.out.strip() == "Hi"
    too_long = run("create", "--system", "x" * 2000, "--model", "qwen")
    assert "500" in too_long.err
    assert too_long.code == 1
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert f"answers from {upstream.url}; models: qwen" in err
    assert KEY not in out + err + told.out + told.err
    assert {key for _, key, _ in upstream.asked} == {f"Bearer {KEY}"}
    warming, chat = (body for path, _, body in upstream.asked if path == "/v1/chat/completions")
    assert (warming["max_tokens"], chat.get("max_tokens")) == (1, None)
    assert server.returncode == 0


def test_serves_in_this_process(run: Run, upstream: Upstream) -> None:
    """The command runs until a signal, prints the exports, and ends with its connections and its engine closed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def stop() -> None:
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)  # another thread's socket tells of itself in no other way
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    served = run("serve", "--port", str(port), "--key", "k", "--engine", "openai", "--upstream", upstream.url)
    stopping.join()
    assert served.code == 0
    assert served.out.startswith(f"export CTXCACHE_BASE_URL=http://127.0.0.1:{port}/v1\n")
    assert "models: qwen" in served.err
    assert served.err.endswith("stopped\n")


def test_names_windows_and_no_warming(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, upstream: Upstream
) -> None:
    """`--model ID=NAME` maps names, `--window` sets the window, `--no-warm` sends nothing at a create."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    options = ["--model", "mine=qwen", "--window", "100", "--no-warm", "--upstream-kind", "vllm"]
    options += ["--upstream-key-file", str(tmp_path / "key")]
    server = spawn("serve", "--port", "0", "--engine", "openai", "--upstream", upstream.url, *options)
    assert ask(run, monkeypatch, exports_of(server), "--model", "mine").code == 0
    ((path, key, chat),) = upstream.asked
    assert (path, key, chat["model"]) == ("/v1/chat/completions", f"Bearer {KEY}", "qwen")
    assert chat["cache_salt"]
    assert "100" in run("create", "--system", "x" * 500, "--model", "mine").err


def test_the_window_of_a_scripted_model(spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--window` is for every engine."""
    server = spawn("serve", "--port", "0", "--window", "50", "--first-token-delay", "0", "--pieces-per-second", "0")
    assert ask(run, monkeypatch, exports_of(server)).code == 0
    assert "50" in run("create", "--system", "x" * 500).err


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("--engine", "openai"), 2, "--engine openai needs --upstream URL"),
        (("--upstream", "http://127.0.0.1:1/v1"), 2, "--upstream needs --engine openai"),
        (("--engine", "openai", "--upstream", "nonsense"), 2, "upstream must be an http or https URL"),
        (
            ("--engine", "openai", "--upstream", "http://127.0.0.1:1/v1"),
            1,
            "cannot list the models of http://127.0.0.1:1",
        ),
        (("--engine", "openai", "--upstream", "http://127.0.0.1:1/v1", "--model", "a="), 2, "'a=' is not an id"),
        (("--engine", "openai", "--upstream", "x", "--upstream-kind", "tgi"), 2, "invalid choice"),
        (("--engine", "openai", "--upstream", "x", "--upstream-key-file", "none"), 2, "none: No such file"),
        (("--window", "1"), 2, "'1' is not a whole number from 2 up"),
    ],
)
def test_what_cannot_be_served(run: Run, argv: tuple[str, ...], code: int, told: str) -> None:
    """Bad options are reported in one line."""
    failed = run("serve", "--port", "0", *argv)
    assert (failed.code, failed.out) == (code, "")
    assert told in failed.err
    assert failed.err.count("\n") == 1


def test_an_upstream_without_models(run: Run, upstream: Upstream) -> None:
    """A server that lists no model is told to be named one."""
    upstream.listed = {"data": []}
    failed = run("serve", "--port", "0", "--engine", "openai", "--upstream", upstream.url)
    assert (failed.code, failed.out) == (2, "")
    assert "--model" in failed.err


def test_every_kind_is_a_choice() -> None:
    """The command's choices are the engine's kinds, written down here since --help must not import the engine."""
    assert ("auto", *KINDS) == serve.UPSTREAM_KINDS
