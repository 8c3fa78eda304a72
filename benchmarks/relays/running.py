"""A relay at work before the load server: started, asked, seen from outside, ended with all its processes."""

import contextlib
import ctypes
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from .. import loads
from ..accounting import ProcessGroup
from ..clients import KEY, PROMPT
from ..processes import ROOT, environment
from . import Place, Relay, find, free_port
from .reading import first_chunk

__all__ = ["Running", "question", "relay"]

_STARTING: Final = 60.0  # LiteLLM takes 8 s
_ENDING: Final = 5.0
_POLL: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1  # of <sys/prctl.h>
_CHAT: Final = "/v1/chat/completions"
_HEADERS: Final = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def question(port: int, path: str = _CHAT, **body: Any) -> bytes:
    """The bytes of a request for a streamed answer."""
    content = _content(**body, stream=True)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in _HEADERS.items()),
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def _content(**body: Any) -> bytes:
    return loads.data({**body, "messages": [{"role": "user", "content": PROMPT}]})


class Running:
    """A relay that listens.

    Attributes:
        port: the port on 127.0.0.1.
        processes: the relay's.
    """

    def __init__(self, port: int, processes: ProcessGroup, *, context: bool) -> None:
        self.port = port
        self.processes = processes
        self._context = context
        self._contexts: dict[str, str] = {}

    def question(self, load: str) -> bytes:
        """The bytes of a request for a load; for the Context API, on a context that is created at first use."""
        if not self._context:
            return question(self.port, model=load)
        if load not in self._contexts:
            self._contexts[load] = self._create(load)
        path = "/v1/context/chat/completions"
        return question(self.port, path, model=load, context_id=self._contexts[load])

    def _create(self, load: str) -> str:
        asking = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_STARTING)
        with contextlib.closing(asking):
            asking.request("POST", "/v1/context/create", _content(model=load, mode="common_prefix"), _HEADERS)
            answer = asking.getresponse().read()
        if b'"id"' not in answer:
            raise RuntimeError(f"no context: {answer[:300].decode(errors='replace')}")
        made: str = json.loads(answer)["id"]
        return made


@contextlib.contextmanager
def relay(name: str, upstream: int, models: Sequence[str]) -> Iterator[Running]:
    """Run a relay before the load server at a port, for those loads; it has answered once when this yields."""
    known, port = find(name), free_port()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+b") as log:
        place = Place(f"http://127.0.0.1:{upstream}", port, (*models, loads.WARM), Path(folder))
        with _process(known, place, log) as process:
            running = Running(port, ProcessGroup(process.pid), context=known.context)
            try:
                _wait(running, process)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                log.seek(0)
                said = log.read().decode(errors="replace").strip()
                raise RuntimeError(f"{name} does not relay: {error}; it said: {said[-200:]}") from error
            yield running


@contextlib.contextmanager
def _process(known: Relay, place: Place, log: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        known.command(place),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=ROOT,
        env={**environment(), **known.environment},
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # the second for what the first did not end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING)


def _end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when the one that started it has ended, however that was."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(running: Running, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the relay answers."""
    deadline = time.monotonic() + _STARTING
    while True:
        try:
            first_chunk(running.port, running.question(loads.WARM))
        except (OSError, RuntimeError, http.client.HTTPException):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(_POLL)
        else:
            return
