"""The options that lead to a service: URL, key, model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..hostile import CONTEXT, Hostile, answer

Run = Callable[..., Any]


def test_model_and_key_must_be_known(service: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a model or a key the command says which option or variable to set, exit code 2."""
    monkeypatch.delenv("CTXCACHE_MODEL")
    failed = run("create", "--system", "x")
    assert (failed.code, failed.err) == (2, "ctxcache: no model: give --model ID, or set CTXCACHE_MODEL\n")
    monkeypatch.setenv("CTXCACHE_API_KEY", " ")
    failed = run("create", "--system", "x", "--model", "m")
    told = "ctxcache: no API key: set CTXCACHE_API_KEY, or give --api-key-file FILE\n"
    assert (failed.code, failed.err) == (2, told)


def test_key_from_a_file(peer: Hostile, run: Run, tmp_path: Path) -> None:
    """`--api-key-file` takes precedence over the environment; surrounding white space is dropped."""
    (tmp_path / "key").write_text("sk-from-file\n")
    peer.plays([answer(CONTEXT)])
    assert run("create", "--system", "x", "--api-key-file", str(tmp_path / "key")).code == 0
    assert peer.posts[0].headers["authorization"] == "Bearer sk-from-file"


@pytest.mark.parametrize("content", [b"", b"\n", b"sk-one\nsk-two\n", b"sk-\xff", b"sk-\x00one"])
def test_file_that_is_no_key(service: Any, run: Run, tmp_path: Path, content: bytes) -> None:
    """A file that is not one key is refused without showing its content."""
    (tmp_path / "key").write_bytes(content)
    failed = run("create", "--system", "x", "--api-key-file", str(tmp_path / "key"))
    assert failed.code == 2
    assert failed.err.startswith(f"ctxcache: {tmp_path}/key: ")
    assert "sk-" not in failed.err


def test_base_url_from_the_command_line(peer: Hostile, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--base-url` takes precedence over the environment."""
    monkeypatch.setenv("CTXCACHE_BASE_URL", "http://127.0.0.1:1/v1")
    peer.plays([answer(CONTEXT)])
    assert run("create", "--system", "x", "--base-url", peer.url).code == 0
