"""One running llama.cpp server: its process, its slots, and the calls that llama.cpp has beside OpenAI's."""

import asyncio
import json
import logging
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs

from .... import codec
from ....client.session import AsyncSession
from ....config import Secret, Timeouts
from ....errors import APIConnectionError, InvalidInputError
from .slots import Slots

__all__ = ["COMMAND", "LlamaServer", "ServerSettings"]

COMMAND: Final = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))  # -P: no import from that folder

_log: Final = logging.getLogger("ctxcache.gateway")
_TIMEOUTS: Final = Timeouts(head=None, idle=None)  # a long prompt takes minutes; a server that hangs is killed
_KEPT_LOG: Final = 16 * 1024  # bytes
_BLOCK: Final = 4096
_TEXT_END: Final = -1  # no token of any model


@attrs.frozen(kw_only=True)
class ServerSettings:
    """What a server is started with.

    Attributes:
        model: the GGUF file.
        name: the model's name.
        slots: how many calls are computed at once.
        window: the context window of each slot, in tokens.
        threads: threads for the computation; 0 leaves the number to llama.cpp.
        folder: the folder for saved slots.
    """

    model: Path
    name: str
    slots: int
    window: int
    threads: int
    folder: Path = Path()


class LlamaServer:
    """A started server, made by `start`. Ends with `aclose`, or by itself: `ended`.

    Attributes:
        url: the URL of the server, without a path.
        key: the bearer key of the server.
        model: the name of the model.
        session: calls the server's part of OpenAI's API.
        slots: the slots of the server, all of them empty at first.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        log: "_Log",
        http: aiohttp.ClientSession,
        url: str,
        key: Secret,
        settings: ServerSettings,
    ) -> None:
        self.url: Final = url
        self.key: Final = key
        self.model: Final = settings.name
        self.session: Final = AsyncSession(key.reveal(), f"{url}/v1", http=http, timeouts=_TIMEOUTS, retry=0)
        self.slots: Final = Slots(settings.slots)
        self._http: Final = http
        self._process: Final = process
        self._log: Final = log

    def __repr__(self) -> str:
        return f"<LlamaServer {self.url}, process {self._process.pid}>"

    @classmethod
    async def start(
        cls, settings: ServerSettings, http: aiohttp.ClientSession, command: Sequence[str] = COMMAND
    ) -> "LlamaServer":
        """Start a server, and wait until its model is loaded.

        Args:
            settings: what to serve.
            http: makes the connections, and must not keep any: after a stream llama.cpp promises to keep the
                connection, and closes it.
            command: runs the program of the child.

        Raises:
            InvalidInputError: xllamacpp is not installed.
            APIConnectionError: the server cannot be started, or the model not be loaded.
        """
        key = Secret(secrets.token_hex(24))
        process = await _spawn(command)
        log = _Log(process)
        try:
            report = await _load(process, settings, key)
            if "url" in report:
                return cls(process, log, http, report["url"], key, settings)
        except BaseException:
            await _end(process, log)
            raise
        await _end(process, log)
        raise _failure(report, settings, log)

    async def ended(self) -> str:
        """Wait for the end of the process; return the end in words."""
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def answers(self) -> None:
        """Ask for a sign of life.

        Raises:
            OSError: the server cannot be reached. A server that hangs does not answer at all.
        """
        reader, writer = await asyncio.open_connection(*self._address())
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            if not await reader.read(1):
                raise ConnectionResetError
        finally:
            writer.transport.abort()

    def _address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send JSON; return the status and the body of the answer.

        Raises:
            ConnectionError: the server gave no answer, or only a part.
        """
        try:
            async with self._http.post(
                self.url + path,
                data=body,
                headers={"Authorization": f"Bearer {self.key.reveal()}", "Content-Type": "application/json"},
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            problem = type(error).__name__
        raise ConnectionResetError(f"llama.cpp gave no answer: {problem}")

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, by the model.

        Raises:
            ConnectionError: the server gave no answer.
        """
        # Numbers among the texts are tokens that llama.cpp leaves as they are.
        content = [part for text in texts for part in (text, _TEXT_END)]
        tokens = await self._ask("/tokenize", {"content": content, "parse_special": True}, "tokens")
        ends = [place for place, token in enumerate(tokens) if token == _TEXT_END]
        if len(ends) != len(texts):
            raise ConnectionRefusedError("llama.cpp answered /tokenize in another form")
        return [end - begin - 1 for begin, end in pairwise([-1, *ends])]

    async def measure_template(self) -> int:
        """Count the tokens that the model's template puts around each message.

        Raises:
            ConnectionError: the server gave no answer, or the template refuses such messages.
        """
        question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}
        prompts = [
            await self._ask("/apply-template", {"messages": messages}, "prompt")
            for messages in ([question], [question, answer, question])
        ]
        one, three, text = await self.count_tokens([*prompts, "x"])
        return max(0, (three - one) // 2 - text)

    async def _ask(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        status, answer = await self.post(path, codec.encode(body))
        if status != 200:
            raise ConnectionRefusedError(f"llama.cpp answered {path} with status {status}")
        return codec.decode_json(answer)[field]

    async def save(self, slot: int, name: str) -> bool:
        """Save a slot under a name in the folder; return whether that worked (a disk may be full).

        Raises:
            ConnectionError: the server gave no answer.
        """
        return await self._slot_action(slot, "save", name)

    async def restore(self, slot: int, name: str) -> bool:
        """Restore a slot from a file in the folder; return whether that worked.

        Raises:
            ConnectionError: the server gave no answer.
        """
        return await self._slot_action(slot, "restore", name)

    async def _slot_action(self, slot: int, action: str, name: str) -> bool:
        status, answer = await self.post(f"/slots/{slot}?action={action}", codec.encode({"filename": name}))
        if status != 200:
            _log.warning("llama.cpp could not %s a slot: %s", action, answer.decode("utf-8", "replace"))
        return status == 200

    async def aclose(self) -> None:
        """End the process, if there still is one, and every call."""
        await _end(self._process, self._log)
        await self.session.aclose()


class _Log:
    """Reads the log of a process; keeps the beginning, where the reasons of a failed start are."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._kept = b""
        self.reader: Final = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101  # a pipe
        while block := await process.stderr.read(_BLOCK):
            self._kept += block[: _KEPT_LOG - len(self._kept)]
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("llama.cpp: %s", block.decode("utf-8", "replace").rstrip())

    def errors(self) -> list[str]:
        """Return the errors logged: ` E ` stands before each."""
        lines = self._kept.decode("utf-8", "replace").splitlines()
        return [line.partition(" E ")[2].strip() for line in lines if " E " in line]


async def _spawn(command: Sequence[str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    # A session of its own: Ctrl-C is for the gateway, which ends the child when its answers are sent.
    spawning = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    )
    try:
        return await asyncio.shield(spawning)
    except OSError as error:
        problem = error.strerror or str(error)
    except asyncio.CancelledError:  # takes milliseconds, of which a cancelled one would leave a process
        process = await spawning
        await _end(process, _Log(process))
        raise
    raise APIConnectionError(f"cannot start llama.cpp: {problem}")


async def _load(process: asyncio.subprocess.Process, settings: ServerSettings, key: Secret) -> dict[str, Any]:
    """Tell the child its settings; return its report, {} if it ended without one."""
    assert process.stdin is not None  # noqa: S101  # pipes
    assert process.stdout is not None  # noqa: S101
    given = {**attrs.asdict(settings), "parent": os.getpid()}
    process.stdin.write(json.dumps({**given, "key": key.reveal()}, default=str).encode() + b"\n")
    line = await process.stdout.readline()
    try:
        report = json.loads(line)
    except ValueError:  # it ended before
        return {}
    return report if isinstance(report, dict) else {}


async def _end(process: asyncio.subprocess.Process, log: _Log) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    assert process.stdin is not None  # noqa: S101  # a pipe
    process.stdin.close()
    await asyncio.wait([log.reader])  # a task awaited without `wait` would be cancelled with this one


def _failure(report: Mapping[str, Any], settings: ServerSettings, log: _Log) -> APIConnectionError | InvalidInputError:
    if "missing" in report:
        problem = 'the package xllamacpp is not installed: pip install "xllamacpp>=2026.10"'
        return InvalidInputError(problem, field="engine")
    reasons = [*log.errors(), report.get("error", ""), "llama.cpp ended without a reason"]
    reason = next(filter(None, reasons))
    return APIConnectionError(f"llama.cpp cannot load {settings.model.name}: {reason}")
