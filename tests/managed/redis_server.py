"""A Redis or Valkey server for tests: on a free port of 127.0.0.1, without persistence, gone when the test is."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
NO_BINARY = "neither redis-server nor valkey-server is on PATH"


@contextmanager
def redis_server(*options: str, port: int = 0) -> Iterator[str]:
    """Run a server; gives its URL. A port of 0 takes a free one."""
    with tempfile.TemporaryDirectory() as folder:
        process, taken = _started(folder, options, port)
        try:
            yield f"redis://127.0.0.1:{taken}"
        finally:
            process.kill()  # it has nothing to save
            process.communicate()


def _started(folder: str, options: tuple[str, ...], port: int) -> tuple[subprocess.Popen[str], int]:
    said = ""
    for _ in range(10):
        chosen = port or _free_port()
        process = _start(folder, options, chosen)
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "ready to accept connections" in line.lower():
                return process, chosen
        process.communicate()  # somebody took the port in between
    raise RuntimeError(f"the server did not start:\n{said}")


def _start(folder: str, options: tuple[str, ...], port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(str(BINARY), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder),
            *("--save", "", "--appendonly", "no", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
