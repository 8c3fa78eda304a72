"""`ctxcache proxy`: the proxy in a process of its own."""

import http.client
import json
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import KEY, MODEL, Service

Run = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[str]"]
SYSTEM = {"role": "system", "content": "Be kind to everyone, and brief. " * 40}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    """The variables that lead to the gateway behind."""
    monkeypatch.setenv("CTXCACHE_BASE_URL", service.url)
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)


def exports_of(proxy: "subprocess.Popen[str]") -> dict[str, str]:
    """Evaluate the two printed lines in a shell."""
    assert proxy.stdout is not None
    script = "".join(proxy.stdout.readline() for _ in range(2)) + "env"
    shown = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("OPENAI_"))


def ask(exports: dict[str, str], system: Any = SYSTEM) -> tuple[str, str]:
    """Ask as a client of OpenAI's API; return the way the chat went, and the reply."""
    body = {"model": MODEL, "messages": [system, {"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"{exports['OPENAI_BASE_URL']}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {exports['OPENAI_API_KEY']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        way = response.headers["X-Ctxcache"].partition(";")[0]
        return way, json.load(response)["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_told_to_stop(spawn: Spawn, number: signal.Signals) -> None:
    """The exports lead a client to the service; a signal ends the proxy with exit code 0; stderr has no key."""
    proxy = spawn("proxy", "--port", "0", "-v")
    exports = exports_of(proxy)
    marked = {**SYSTEM, "cache_control": {"type": "ephemeral"}}
    assert [ask(exports, marked) for _ in range(2)] == [("created", "echo: Hello"), ("hit", "echo: Hello")]
    proxy.send_signal(number)
    out, err = proxy.communicate(timeout=20)
    assert (proxy.returncode, out) == (0, "")
    assert "POST /v1/chat/completions 200" in err
    assert err.endswith("stopped\n")
    assert exports["OPENAI_API_KEY"] not in err
    assert KEY not in err


def connect(exports: dict[str, str]) -> tuple[http.client.HTTPConnection, dict[str, str]]:
    """A connection with the proxy, and the headers of a chat."""
    host, port = exports["OPENAI_BASE_URL"].removeprefix("http://").removesuffix("/v1").split(":")
    headers = {"Authorization": f"Bearer {exports['OPENAI_API_KEY']}", "Content-Type": "application/json"}
    return http.client.HTTPConnection(host, int(port), timeout=20), headers


@pytest.mark.parametrize("grace", [True, False])
def test_grace(spawn: Spawn, grace: bool) -> None:
    """After a signal answers under way have time to end, unless a second signal comes, or --grace is 0."""
    proxy = spawn("proxy", "--port", "0", *(() if grace else ("--grace", "0")))
    connection, headers = connect(exports_of(proxy))
    messages = [{**SYSTEM, "cache_control": {"type": "ephemeral"}}, {"role": "user", "content": "endless"}]
    body = json.dumps({"model": MODEL, "messages": messages, "stream": True})
    connection.request("POST", "/v1/chat/completions", body, headers)
    assert connection.getresponse().readline().startswith(b"data: ")
    proxy.send_signal(signal.SIGTERM)
    if grace:
        assert proxy.stderr is not None
        while "answers under way have 30 s to end" not in proxy.stderr.readline():
            pass
        proxy.send_signal(signal.SIGTERM)
    assert (proxy.wait(20) == 0) is not grace
    connection.close()


def test_limits_and_host_names(spawn: Spawn) -> None:
    """`--limit` and `--allow-host` reach the proxy."""
    exports = exports_of(spawn("proxy", "--port", "0", "--limit", "body_bytes=1KiB", "--allow-host", "llm.example"))
    connection, headers = connect(exports)
    for name, body, status in (("llm.example", "{}", 404), ("llm.example", " " * 1025, 413), ("x.example", "{}", 421)):
        connection.request("POST", "/v1/chat/completions", body, {**headers, "Host": name})
        response = connection.getresponse()
        assert response.status == status, response.read()
        connection.close()


def test_registered_prefixes_and_store(spawn: Spawn, tmp_path: Path) -> None:
    """A registered beginning needs no mark, and the next start finds the context in the store."""
    file = tmp_path / "prefixes.json"
    file.write_text(json.dumps([{"model": MODEL, "messages": [SYSTEM]}]))
    options = ("--port", "0", "--prefixes", str(file), "--store", str(tmp_path / "contexts.db"), "--max-contexts", "0")
    ways = []
    for _ in range(2):
        proxy = spawn("proxy", *options)
        ways.append(ask(exports_of(proxy))[0])
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(20) == 0
    assert ways == ["created", "hit"]


def test_the_store_of_the_environment(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CTXCACHE_STORE, where a URL with a password belongs, has the forms of --store."""
    monkeypatch.setenv("CTXCACHE_STORE", f"sqlite://{tmp_path}/contexts.db")
    proxy = spawn("proxy", "--port", "0")
    assert ask(exports_of(proxy), {**SYSTEM, "cache_control": {"type": "ephemeral"}})[0] == "created"
    proxy.send_signal(signal.SIGTERM)
    assert proxy.wait(20) == 0
    assert (tmp_path / "contexts.db").exists()


def test_keys_from_files(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both keys come from files where told so; the clients' key is then not printed."""
    monkeypatch.delenv("CTXCACHE_API_KEY")
    (tmp_path / "front").write_text("sk-from-file\n")
    (tmp_path / "behind").write_text(f"{KEY}\n")
    proxy = spawn(
        "proxy", "--port", "0", "--key-file", str(tmp_path / "front"), "--api-key-file", str(tmp_path / "behind")
    )
    assert proxy.stdout is not None
    url, key = proxy.stdout.readline(), proxy.stdout.readline()
    assert key == f'export OPENAI_API_KEY="$(cat {shlex.quote(str(tmp_path / "front"))})"\n'
    exports = {"OPENAI_BASE_URL": url.partition("=")[2].strip(), "OPENAI_API_KEY": "sk-from-file"}
    assert ask(exports, {**SYSTEM, "cache_control": {"type": "ephemeral"}})[0] == "created"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--port", "65536"), "'65536' is not a port"),
        (("--key", "two words"), "api_key must be printable ASCII without spaces"),
        (("--limit", "conections=5"), "--limit: name must be 'connections' or "),
        (("--grace", "-1"), "'-1' is not a number from 0 up"),
        (("--max-contexts", "-1"), "'-1' is not a whole number from 0 up"),
        (("--ttl", "5"), "ttl must be"),
        (("--upstream", "ftp://x"), "upstream must be"),
        (("--prefixes", "none.json"), "none.json: No such file"),
        (("--store", "ftp://x"), "url: it must be redis://"),
        (("--api-key-file", "none"), "none: No such file"),
    ],
)
def test_bad_options(run: Run, argv: tuple[str, ...], told: str) -> None:
    """Bad options are reported in one line, with exit code 2, without the key."""
    failed = run("proxy", *argv)
    assert (failed.code, failed.out) == (2, "")
    assert re.fullmatch(rf"ctxcache: .*{re.escape(told)}.*\n", failed.err)
    assert "two words" not in failed.err


@pytest.mark.parametrize(
    "text", ["{", '{"model": "m"}', '[{"model": "m"}]', "[[[[", '[{"model": "m", "messages": []}]']
)
def test_bad_prefixes(run: Run, tmp_path: Path, text: str) -> None:
    """A file of prefixes that cannot be read is named, with exit code 2."""
    (tmp_path / "prefixes.json").write_text(text)
    failed = run("proxy", "--prefixes", str(tmp_path / "prefixes.json"))
    assert (failed.code, failed.out) == (2, "")
    assert "prefixes" in failed.err


def test_no_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key for the service the command says how to give one."""
    monkeypatch.delenv("CTXCACHE_API_KEY")
    failed = run("proxy")
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert "CTXCACHE_API_KEY" in failed.err
