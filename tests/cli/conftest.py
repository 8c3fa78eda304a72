"""The command, in this process, in another, and on a terminal; a gateway for it that answers on cue."""

import asyncio
import fcntl
import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from ctxcache import AsyncSession, Retry, user
from ctxcache.cli import main
from ctxcache.gateway import Prompt
from ctxcache.testing import RecordingGateway

from ..hostile import Hostile

T = TypeVar("T")

MODEL = "Doubao-1.5-pro-32k"
KEY = "sk-cli-0f4e1d2c3b5a69788796a5b4c3d2e1f0"
PATIENCE = 20.0  # seconds for what is to happen at once; only a failure takes that long
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


# --- the gateway ------------------------------------------------------------------------------------------------------


class CuedEngine:
    """Answers `echo: QUESTION`; the answer to a question that begins with `endless` never ends."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write a reply, word by word."""
        question = prompt.question[-1].content
        for word in f"echo: {question}".split(" "):
            yield f"{word} "
        if question.startswith("endless"):
            await asyncio.Event().wait()


class LoopThread:
    """An event loop in a thread of its own, so that a command can run in this one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in that loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in that loop."""
        self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Service:
    """A gateway in another thread."""

    def __init__(self, gateway: RecordingGateway) -> None:
        self.url = gateway.base_url
        self._gateway = gateway

    def expire(self, context_id: str) -> None:
        """Let a context expire now."""
        assert self._gateway.expire(context_id)

    def messages(self, context_id: str) -> list[tuple[str, Any]]:
        """The messages a context holds: role and content."""
        return [(message.role, message.content) for message in self._gateway.messages(context_id) or ()]

    def until_free(self, context_id: str) -> None:
        """Ask on a context until the service no longer refuses because of another call."""

        async def ask() -> None:
            impatient = Retry(attempts=10_000, first_delay=0.001, max_delay=0.001)
            async with asyncio.timeout(PATIENCE), AsyncSession(KEY, self.url, retry=impatient) as session:
                await session.chat.create(context_id=context_id, model=MODEL, messages=[user("Free?")])

        asyncio.run(ask())


@pytest.fixture(scope="session")
def thread() -> Iterator[LoopThread]:
    """Where the servers run."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def _gateway() -> Iterator[RecordingGateway]:
    with RecordingGateway(engine=CuedEngine(), api_key=KEY) as gateway:
        yield gateway


@pytest.fixture
def service(_gateway: RecordingGateway, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A gateway, and the environment that leads the command to it."""
    _lead_to(_gateway.base_url, monkeypatch)
    return Service(_gateway)


@pytest.fixture
def peer(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    """A hostile server, and the environment that leads the command to it."""
    server = thread.run(Hostile().__aenter__())
    _lead_to(server.url, monkeypatch)
    yield server
    thread.run(server.__aexit__())


def _lead_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXCACHE_BASE_URL", url)
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
    monkeypatch.setenv("CTXCACHE_MODEL", MODEL)


@pytest.fixture
def context_id(service: Service, run: Callable[..., Result]) -> str:
    """A session context on the gateway."""
    return run("create", "--system", "Be brief").out.strip()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="session")
def _signals_as_usual() -> Iterator[None]:
    """Whoever runs the tests in the background may ignore SIGINT; the processes they start must not inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "CTXCACHE_SHARDS")
    for name in ("CTXCACHE_MODEL", "CTXCACHE_STORE", "NO_COLOR", "FORCE_COLOR", *scheduler):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process, with `stdin` piped in."""

    def run(*argv: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main(argv)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the command in a process of its own, its three streams piped. One that hangs is killed after a while."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def spawn(*argv: str, **options: Any) -> "subprocess.Popen[str]":
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
        process = subprocess.Popen([sys.executable, "-m", "ctxcache", *argv], text=True, **pipes)
        started.append((process, threading.Timer(3 * PATIENCE, process.kill)))
        started[-1][1].start()
        return process

    yield spawn
    for process, watch in started:
        watch.cancel()
        process.kill()
        with process:  # closes the pipes and waits
            pass


class TerminalProcess:
    """The command on a pseudo-terminal that is its controlling terminal, so that Ctrl-C is a key like any other."""

    def __init__(self, argv: tuple[str, ...], redirect: str) -> None:
        self._ours, self._theirs = os.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        # The leader of a new session gets the first terminal it opens as its controlling one.
        shell = f'exec "$@" <"$0" >"$0" 2>"$0" {redirect}'
        command = ["/bin/sh", "-c", shell, os.ttyname(self._theirs), sys.executable, "-m", "ctxcache", *argv]
        self.process = subprocess.Popen(command, start_new_session=True)
        self.shown = ""  # all that was written, with its escape codes
        self._seen = 0

    def expect(self, text: str) -> str:
        """Read until a text is shown after what was expected last; return what was shown up to it."""
        deadline = time.monotonic() + PATIENCE
        while (place := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not shown, but {self.shown[self._seen :]!r}"
            if not self._read(0.05):
                assert self.process.poll() is None, f"it ended without {text!r}: {self.shown!r}"
        start, self._seen = self._seen, place + len(text)
        return self.shown[start : self._seen]

    def type(self, keys: str | bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys if isinstance(keys, bytes) else keys.encode())

    def wait(self) -> int:
        """Read to the end; return the exit code."""
        code = self.process.wait(PATIENCE) if self._read_until_exit() else None
        assert code is not None, f"it does not end: {self.shown!r}"
        return code

    def _read_until_exit(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None  # asked first, so that what it wrote last is read, too
            if not self._read(0.05) and ended:
                return True
        return False

    def _read(self, patience: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], patience)
        if ready:
            self.shown += os.read(self._ours, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(ready)

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., TerminalProcess]]:
    """Start the command on a terminal, 80 by 40; `redirect` is shell, for one of its streams."""
    started: list[TerminalProcess] = []

    def start(*argv: str, redirect: str = "") -> TerminalProcess:
        started.append(TerminalProcess(argv, redirect))
        return started[-1]

    yield start
    for process in started:
        process.close()


# --- the files of a map -----------------------------------------------------------------------------------------------

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
        """The answers in the file, by line of the question; all lines must be whole."""
        text = self.out.read_text()
        assert not text or text.endswith("\n")
        return sorted((json.loads(line) for line in text.splitlines()), key=lambda one: one["line"])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Three questions over a short manual."""
    return Files(tmp_path)
