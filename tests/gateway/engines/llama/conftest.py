"""A package that stands for xllamacpp in child processes, servers started with it, and files that pass for models."""

import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ctxcache.gateway.engines.llama.server import LlamaServer, ServerSettings

FAKE = Path(__file__).with_name("fake")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes import the package of the folder `fake` in place of xllamacpp."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))


def text(value: str) -> bytes:
    """Encode a string of a GGUF file."""
    return struct.pack("<Q", len(value)) + value.encode()


def number(kind: int, value: int) -> bytes:
    """Encode a number with its type: 4 is an unsigned integer of 32 bits, 10 one of 64."""
    return struct.pack("<IQ" if kind == 10 else "<II", kind, value)


def gguf(*pairs: tuple[str, bytes], version: int = 3) -> bytes:
    """Encode the header of a GGUF file."""
    encoded = b"".join(text(key) + value for key, value in pairs)
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + encoded


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Make a file that passes for a model; a word in the file plays a fault of loading."""

    def make(words: str = "", name: str = "small.gguf", window: int = 64) -> Path:
        path = tmp_path / name
        path.write_bytes(gguf(("fake.context_length", number(4, window))) + words.encode())
        return path

    return make


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections that are not kept."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
async def start_server(
    fake: None, model: Callable[..., Path], http: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[LlamaServer]]]:
    """Start servers, which end with the test."""
    started: list[LlamaServer] = []
    folder = tmp_path / "slots"
    folder.mkdir()

    async def start(words: str = "", **command: Any) -> LlamaServer:
        settings = ServerSettings(model=model(words), name="small", slots=2, window=64, threads=2, folder=folder)
        started.append(await LlamaServer.start(settings, http, **command))
        return started[-1]

    yield start
    for server in started:
        await server.aclose()


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    """Tell whether a process runs: one that ended and waits for its parent's look does not."""

    def look(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        except OSError:
            os.kill(pid, 0)
            return True
        return state not in "ZX"

    return look


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """List the servers that this process started and that run."""

    def look() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"\nPPid:\t{os.getpid()}\n" in (path / "status").read_text():
                    found += [int(path.name)] if b"child.py" in (path / "cmdline").read_bytes() else []
        return found

    return look
