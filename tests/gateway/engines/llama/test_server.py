"""A llama.cpp server in a child process, with a package that stands for xllamacpp."""

import asyncio
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ctxcache.errors import APIConnectionError, InvalidInputError
from ctxcache.gateway.engines.llama.server import LlamaServer

StartServer = Callable[..., Awaitable[LlamaServer]]
IsRunning = Callable[[int], bool]


async def post(server: LlamaServer, path: str, body: object) -> tuple[int, Any]:
    """Send JSON; return the status and the JSON of the answer."""
    status, answer = await server.post(path, json.dumps(body).encode())
    return status, json.loads(answer)


def chat(text: str, slot: int = 0, **fields: object) -> dict[str, object]:
    """The body of a chat."""
    return {"id_slot": slot, "messages": [{"role": "user", "content": text}], **fields}


def pid_of(server: LlamaServer) -> int:
    """The process of a server, as its repr tells."""
    return int(repr(server).removesuffix(">").rpartition(" ")[2])


async def test_answers_calls(start_server: StartServer) -> None:
    """A started server is on loopback, gives signs of life, answers with JSON, and wants its key."""
    server = await start_server()
    assert server.url.startswith("http://127.0.0.1:")
    await server.answers()
    status, answer = await post(server, "/v1/chat/completions", chat("one two"))
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "one two")
    async with aiohttp.ClientSession() as stranger, stranger.get(server.url + "/slots") as response:
        assert response.status == 401


async def test_slots_are_saved_and_restored(start_server: StartServer) -> None:
    """Tokens computed in one slot are cached in another that restored them, at a second server too."""
    first = await start_server()

    async def cached(server: LlamaServer, slot: int) -> int:
        _, answer = await post(server, "/v1/chat/completions", chat("a b c d", slot))
        found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    assert await cached(first, 0) == 0
    assert await first.save(0, "file")
    assert await first.restore(1, "file")
    assert await cached(first, 1) == 4
    second = await start_server()
    assert await second.restore(1, "file")
    assert await cached(second, 1) == 4


async def test_tokens_are_counted(start_server: StartServer) -> None:
    """Texts are counted by the model, and what its template puts around a message; a lost server is an error."""
    server = await start_server()
    assert await server.count_tokens(["", "one", "one two three"]) == [0, 1, 3]
    assert await server.measure_template() == 1
    with pytest.raises(ConnectionError, match="in another form"):
        await server.count_tokens(["texts only", "one"])
    await server.aclose()
    for count in (server.count_tokens(["x"]), server.measure_template()):
        with pytest.raises(ConnectionError):
            await count


async def test_a_slot_that_cannot_be_restored(start_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    """A missing file is a False and a line of the log, no exception."""
    server = await start_server()
    assert not await server.restore(0, "none")
    assert "could not restore a slot" in caplog.text


async def test_the_end_is_told(start_server: StartServer, is_running: IsRunning) -> None:
    """A server that is killed is noticed; calls and looks fail with an error; closing is still fine."""
    server = await start_server()
    os.kill(pid_of(server), signal.SIGKILL)
    assert await server.ended() == "signal 9"
    with pytest.raises(ConnectionResetError, match=r"^llama\.cpp gave no answer: ClientConnectorError$"):
        await post(server, "/tokenize", {"content": ""})
    with pytest.raises(ConnectionRefusedError):
        await server.answers()
    await server.aclose()


async def test_aclose_ends_the_process(start_server: StartServer, is_running: IsRunning) -> None:
    """`aclose` ends the process, one that hangs too, and may be repeated."""
    for hang in (False, True):
        server = await start_server()
        pid = pid_of(server)
        assert is_running(pid)
        if hang:
            os.kill(pid, signal.SIGSTOP)
        await server.aclose()
        assert not is_running(pid)
        await server.aclose()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("broken", "cannot load small.gguf: llama_model_load: error loading model: it is broken"),
        ("exit", "cannot load small.gguf: llama.cpp ended without a reason"),
    ],
)
async def test_a_start_that_fails(start_server: StartServer, words: str, told: str) -> None:
    """A failed start tells the reason of llama.cpp's log in one line, and leaves no process."""
    with pytest.raises(APIConnectionError) as caught:
        await start_server(words)
    assert str(caught.value) == f"llama.cpp {told}"


async def test_no_package(start_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without xllamacpp the error says how to install it."""
    (tmp_path / "xllamacpp.py").write_text("raise ModuleNotFoundError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidInputError, match=r'^the package xllamacpp is not installed: pip install "xllamacpp'):
        await start_server()


async def test_no_interpreter(start_server: StartServer, tmp_path: Path) -> None:
    """A program that cannot be run is an error of the package."""
    with pytest.raises(APIConnectionError, match=r"^cannot start llama\.cpp: No such file or directory$"):
        await start_server(command=(str(tmp_path / "python"),))


async def test_a_cancelled_start_leaves_no_process(start_server: StartServer, is_running: IsRunning) -> None:
    """A start that is cancelled while the model is loaded ends the child."""
    pids: list[int] = []
    program = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(1000)"
    start = asyncio.create_task(start_server(command=(sys.executable, "-c", program)))  # type: ignore[arg-type]

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pids.append(int(record.getMessage().rpartition(" ")[2]))
            start.cancel()

    log = logging.getLogger("ctxcache.gateway")
    log.setLevel(logging.DEBUG)
    log.addHandler(reader := Reader())
    try:
        async with asyncio.timeout(20):
            await asyncio.wait([start])
    finally:
        log.removeHandler(reader)
        log.setLevel(logging.NOTSET)
    assert start.cancelled()
    assert not is_running(pids[0])


async def test_a_long_log_is_read_and_not_kept(start_server: StartServer) -> None:
    """A child that logs megabytes is never held up by a full pipe."""
    program = (
        "import sys; sys.stderr.write('x' * 4_000_000); sys.stderr.write(' E late'); print('{\"error\": \"end\"}')"
    )
    with pytest.raises(APIConnectionError, match=r"^llama\.cpp cannot load small\.gguf: end$"):
        await start_server(command=(sys.executable, "-c", program))


async def test_the_key_is_never_shown(start_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the repr nor a traceback with local variables nor the log shows the key."""
    caplog.set_level(logging.DEBUG)
    server = await start_server()
    shown = [repr(server), repr(server.key), repr(server.session)]
    await server.aclose()
    with pytest.raises(ConnectionResetError) as caught:
        await post(server, "/tokenize", {"content": ""})
    shown += traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert len(server.key.reveal()) >= 32
    assert server.key.reveal() not in "".join(shown) + caplog.text
