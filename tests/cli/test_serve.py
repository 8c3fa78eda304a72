"""`ctxcache serve`: the gateway in a process of its own."""

import asyncio
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache.cli import serve

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]


def exports_of(server: "subprocess.Popen[str]") -> dict[str, str]:
    """Evaluate the two printed lines in a shell."""
    assert server.stdout is not None
    lines = [server.stdout.readline() for _ in range(2)]
    script = "".join(lines) + "env"
    shown = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("CTXCACHE_"))


def ask(run: Run, monkeypatch: pytest.MonkeyPatch, exports: dict[str, str], *argv: str) -> Any:
    """Create a context on the server and ask one question."""
    for name, value in {**exports, "CTXCACHE_MODEL": "Doubao-1.5-pro-32k"}.items():
        monkeypatch.setenv(name, value)
    made = run("create", "--system", "x", *argv)
    assert made.code == 0, made.err
    return run("chat", made.out.strip(), "hello", *argv)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_told_to_stop(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The exports lead a client to the gateway; SIGINT and SIGTERM end it with exit code 0; stderr has no key."""
    server = spawn("serve", "--port", "0", "--pieces-per-second", "0", "--first-token-delay", "0")
    exports = exports_of(server)
    told = ask(run, monkeypatch, exports)
    assert told.code == 0
    assert "This is a scripted answer, not a language model." in told.out
    server.send_signal(number)
    out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, "")
    assert "scripted answers, no language model" in err
    assert err.endswith("stopped\n")
    assert exports["CTXCACHE_API_KEY"] not in err


@pytest.fixture
def stream_under_way(spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Start a server and a client that reads a stream; return both processes."""

    def start(*argv: str, length: int) -> Any:
        server = spawn("serve", "--port", "0", "--length", str(length), "--pieces-per-second", "50", *argv)
        for name, value in {**exports_of(server), "CTXCACHE_MODEL": "Doubao-1.5-pro-32k"}.items():
            monkeypatch.setenv(name, value)
        client = spawn("chat", run("create", "--system", "x").out.strip(), "hi")
        assert client.stdout is not None
        assert client.stdout.read(4) == "This"
        return server, client

    return start


def test_stops_with_a_stream_open(stream_under_way: Callable[..., Any]) -> None:
    """Without a grace SIGTERM ends the answers under way: exit code 0, the client reports why the answer ended."""
    server, client = stream_under_way("--grace", "0", length=100_000)
    server.send_signal(signal.SIGTERM)
    assert server.wait(4) == 0
    _, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert err.startswith(
        "ctxcache: 503 ServerOverloaded: The gateway is shutting down, and the answer was not complete."
    )


def test_lets_a_stream_end(stream_under_way: Callable[..., Any]) -> None:
    """After SIGTERM a stream comes to its end, and then the gateway ends, with exit code 0."""
    server, client = stream_under_way(length=60)
    server.send_signal(signal.SIGTERM)
    out, err = client.communicate(timeout=20)
    assert (client.returncode, err.count("\n")) == (0, 1), "the usage, and no error"
    assert out.rstrip().endswith("nine ten one")
    _, err = server.communicate(timeout=20)
    assert server.returncode == 0
    assert err.endswith("stopping; answers under way have 30 s to end\nstopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(stream_under_way: Callable[..., Any], number: signal.Signals) -> None:
    """Whoever cannot wait signals again: the gateway ends, though a stream has time left."""
    server, client = stream_under_way(length=100_000)
    server.send_signal(number)
    assert server.stderr is not None
    while "stopping" not in server.stderr.readline():
        pass
    server.send_signal(number)
    assert server.wait(10) != 0
    client.communicate(timeout=20)
    assert client.returncode == 1


def test_limits_and_host_names(spawn: Spawn) -> None:
    """`--limit` and `--allow-host` reach the gateway."""
    options = ("--limit", "body_bytes=1KiB", "--limit", "head_seconds=20", "--allow-host", "llm.example")
    exports = exports_of(spawn("serve", "--port", "0", *options))
    host, port = exports["CTXCACHE_BASE_URL"].removeprefix("http://").removesuffix("/v1").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    headers = {"Authorization": f"Bearer {exports['CTXCACHE_API_KEY']}", "Content-Type": "application/json"}
    for name, body, status in (("llm.example", "{}", 400), ("llm.example", " " * 1025, 413), ("x.example", "{}", 421)):
        connection.request("POST", "/v1/context/create", body, {**headers, "Host": name})
        response = connection.getresponse()
        assert response.status == status, response.read()
        connection.close()


def test_key_and_models_of_ones_own(spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--key` sets the key, quoted for the shell; `--model` names a served model."""
    key = "sk-'$HOME'-\"x\""
    server = spawn("serve", "--port", "0", "--key", key, "--model", "mine", "--pieces-per-second", "0")
    exports = exports_of(server)
    assert exports["CTXCACHE_API_KEY"] == key
    assert ask(run, monkeypatch, exports, "--model", "mine").code == 0
    failed = run("create", "--system", "x", "--model", "Doubao-pro-32k")
    assert failed.err.startswith("ctxcache: 404 InvalidEndpointOrModel.NotFound")


def test_key_from_a_file_is_not_printed(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With `--key-file` the export reads the file from any folder, and the key is nowhere in the output."""
    (tmp_path / "a key").write_text("sk-from-file\n")
    server = spawn("serve", "--port", "0", "--key-file", "a key", "-v", cwd=tmp_path, env=source_path())
    assert server.stdout is not None
    url, key = server.stdout.readline(), server.stdout.readline()
    assert key == f'export CTXCACHE_API_KEY="$(cat {shlex.quote(str(tmp_path / "a key"))})"\n'
    exports = {"CTXCACHE_BASE_URL": url.partition("=")[2].strip(), "CTXCACHE_API_KEY": "sk-from-file"}
    assert ask(run, monkeypatch, exports).code == 0
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert "ctxcache: POST /v1/context/create 200 " in err
    assert "sk-" not in out + err


def source_path() -> dict[str, str]:
    """The environment, with this package importable from any folder."""
    import ctxcache

    assert ctxcache.__file__ is not None
    paths = [str(Path(ctxcache.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_port_in_use(run: Run) -> None:
    """A port in use is one line on stderr and exit code 1; signal handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", "--port", str(port))
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"ctxcache: cannot listen on 127\.0\.0\.1 port {port}: .*\n", err)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("--host", "no.such.host.invalid", "--port", "0"), 1, "cannot listen on no.such.host.invalid port 0: "),
        (("--port", "65536"), 2, "'65536' is not a port from 0 to 65535"),
        (("--pieces-per-second", "-1"), 2, "'-1' is not a number from 0 up"),
        (("--first-token-delay", "nan"), 2, "'nan' is not a number from 0 up"),
        (("--length", "-1"), 2, "'-1' is not a whole number from 0 up"),
        (("--key", "two words"), 2, "api_key must be printable ASCII without spaces"),
        (("--key", "a", "--key-file", "b"), 2, "not allowed with argument"),
        (("--key-file", "none"), 2, "none: No such file or directory"),
        (("--grace", "-1"), 2, "'-1' is not a number from 0 up"),
        (("--limit", "connections"), 2, "'connections' is not a name and a number: connections=500"),
        (("--limit", "body_bytes=5XiB"), 2, "'body_bytes=5XiB' is not a name and a number"),
        (("--limit", "head_seconds=1GiB"), 2, "'head_seconds=1GiB' is not a name and a number"),
        (("--limit", "connections=5KiB"), 2, "'connections=5KiB' is not a name and a number"),
        (("--limit", "body_bytes=-1KiB"), 2, "'body_bytes=-1KiB' is not a name and a number"),
        (("--limit", "conections=5"), 2, "--limit: name must be 'connections' or "),
        (("--limit", "connections=0"), 2, "GatewayLimits.connections must be a whole number from 1 up, got 0"),
        (("--allow-host", "a.example:80"), 2, "allowed_hosts must be a list of host names without port"),
        (("--no-warm",), 2, "--no-warm needs --engine openai or llama"),
        (("--upstream-kind", "vllm"), 2, "--upstream-kind needs --engine openai"),
        (("--engine", "openai", "--length", "5"), 2, "--length needs --engine scripted"),
        (("--engine", "llama", "--pieces-per-second", "40"), 2, "--pieces-per-second needs --engine scripted"),
        (("--engine", "llama", "--first-token-delay", "0"), 2, "--first-token-delay needs --engine scripted"),
        (("--model", "mine=qwen"), 2, "--model ID=NAME needs --engine openai or llama"),
        (("--cache-bytes", "5XiB"), 2, "'5XiB' is not a number of bytes: 500MiB"),
        (("--cache-bytes", "infKiB"), 2, "'infKiB' is not a number of bytes"),
        (("--cache-bytes", "1KiB"), 2, "--cache-bytes needs --engine llama"),
        (("--model", ""), 2, "models must be a list of non-empty strings, got ''"),
    ],
)
def test_what_cannot_be_served(run: Run, argv: tuple[str, ...], code: int, told: str) -> None:
    """Bad options are reported in one line, without the key."""
    failed = run("serve", *argv)
    assert (failed.code, failed.out) == (code, "")
    assert failed.err.startswith("ctxcache: ")
    assert told in failed.err
    assert failed.err.count("\n") == 1
    assert "two words" not in failed.err


UVLOOP = """
import asyncio, sys
def new_event_loop():
    print("uvloop made it", file=sys.stderr)
    return asyncio.new_event_loop()
"""


@pytest.mark.parametrize(("uvloop", "used"), [(UVLOOP, True), ("raise ImportError", False)])
def test_runs_on_uvloop_where_installed(spawn: Spawn, tmp_path: Path, uvloop: str, used: bool) -> None:
    """`serve` runs on an event loop of uvloop's, or of asyncio's where there is no uvloop."""
    (tmp_path / "uvloop.py").write_text(uvloop)
    env = source_path()
    server = spawn("serve", "--port", "0", env={**env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"})
    exports_of(server)
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=20)
    assert server.returncode == 0
    assert ("uvloop made it" in err) == used


async def test_second_signal_has_its_usual_effect() -> None:
    """The first signal asks for a clean stop and restores the handlers, so a second signal kills."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with serve.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 20)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_exports_come_at_once(spawn: Spawn) -> None:
    """The exports are flushed as soon as the gateway listens, so that a program can read them."""
    server = spawn("serve", "--port", "0")
    exports = exports_of(server)
    assert set(exports) == {"CTXCACHE_BASE_URL", "CTXCACHE_API_KEY"}
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/v1", exports["CTXCACHE_BASE_URL"])


def test_faults_on_cue(spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--fault` lets calls fail: the second chat, not the first; a create is not concerned."""
    quick = ("--pieces-per-second", "0", "--first-token-delay", "0")
    server = spawn("serve", "--port", "0", *quick, "--fault", "chat:fail=403,nth=2", "--fault", "reply=Two years.")
    exports = exports_of(server)
    told = [ask(run, monkeypatch, exports) for _ in range(3)]
    assert [answer.code for answer in told] == [0, 1, 0]
    assert "Two years." in told[0].out
    assert "403" in told[1].err


def test_a_wrong_fault(run: Run) -> None:
    """A fault that cannot be read is bad usage, whose message says what is allowed."""
    refused = run("serve", "--port", "0", "--fault", "chat:fail=200")
    assert refused.code == 2
    assert "fault fail: status must be a whole number in [400, 599], got 200" in refused.err


def test_keys_of_a_file_are_read_again_on_sighup(
    spawn: Spawn, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGHUP brings a new key, and a broken file is told and changes nothing; no key is printed."""
    path = tmp_path / "keys.json"
    ann = run("keys", "add", str(path), "ann").out.strip()
    server = spawn("serve", "-v", "--port", "0", "--keys", str(path), "--pieces-per-second", "0")
    assert server.stdout is not None
    assert server.stderr is not None
    url = server.stdout.readline().partition("CTXCACHE_BASE_URL=")[2].strip()
    assert server.stderr.readline().startswith("listening on")
    bob = run("keys", "add", str(path), "bob").out.strip()
    monkeypatch.setenv("CTXCACHE_MODEL", "Doubao-1.5-pro-32k")
    monkeypatch.setenv("CTXCACHE_BASE_URL", url)
    codes, told = [], ""
    for content in (None, "broken"):
        if content is not None:
            path.write_text(content)
        server.send_signal(signal.SIGHUP)
        while "keys" not in (line := server.stderr.readline()):
            assert line
        told += line
        for key in (ann, bob):
            monkeypatch.setenv("CTXCACHE_API_KEY", key)
            codes.append(run("create", "--system", "x").code)
    assert codes == [0, 0, 0, 0]
    assert "the gateway has 2 keys" in told
    assert "the keys stay as they were" in told
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, "")
    assert [key for key in (ann, bob) if key in err + told] == []
