"""More connections than a gateway takes."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from ctxcache.gateway import GatewayLimits

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
# A gateway in a process that may open few files. Each answer takes one more, and waits until so many are under way.
FEW_FILES = """
import asyncio, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
from ctxcache.gateway import Gateway
class Relay:
    awaited = int(sys.argv[1])
    together = asyncio.Event()
    async def generate(self, prompt):
        with open(os.devnull):
            self.awaited -= 1
            if not self.awaited:
                self.together.set()
            await self.together.wait()
            yield "fine"
async def main():
    async with Gateway(api_key="sk-test", engine=Relay()) as gateway:
        print(gateway.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


async def health(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """Ask for the health; return the head and all of the rest up to the end, or the first bytes of a body."""
    with contextlib.suppress(ConnectionError):
        writer.write(HEALTH)
        await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.read(500)


async def test_one_too_many_is_503(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A connection beyond the bound gets a 503 in the envelope and is closed; one that leaves makes room."""
    api = await start(limits=GatewayLimits(connections=2))
    first = await api.connect()
    second = await api.connect()
    async with asyncio.timeout(5):
        for connection in (first, second):
            assert (await health(*connection))[0].startswith(b"HTTP/1.1 200 OK")
        for _ in range(3):
            head, body = await health(*await api.connect())
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 1\r\n" in head
            error = json.loads(body)["error"]
            assert (error["code"], error["message"][:34]) == ("ServerOverloaded", "There are 2 connections already. R")
        first[1].transport.abort()
        while not head.startswith(b"HTTP/1.1 200 OK"):
            head, _ = await health(*await api.connect())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert set(warnings) == {"turning connections away: 2 are open"}
    assert len(warnings) == 1, "not a line for each"


async def test_where_files_run_out_it_refuses_and_recovers() -> None:
    """At three eighths of the open files a gateway refuses connections, logs next to nothing, and works on."""
    pytest.importorskip("resource")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FEW_FILES, "0", **pipes)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        port = int(await process.stdout.readline())
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        heads = [(await health(*connection))[0][9:12] for connection in connections]
        assert heads == [b"200"] * 18 + [b"503"] * 82
        for _, writer in connections:
            writer.transport.abort()
        head = b""
        while b" 200 " not in head:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head, _ = await health(reader, writer)
            writer.transport.abort()
        _, err = await process.communicate(b"")
    assert process.returncode == 0
    assert len(err) < 1000, err.decode()


async def test_every_connection_may_be_relayed() -> None:
    """As many answers as there may be connections are under way at once, each with a file for the engine."""
    pytest.importorskip("resource")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FEW_FILES, "18", **pipes)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        base_url = f"http://127.0.0.1:{int(await process.stdout.readline())}/v1/context"
        body: dict[str, Any] = {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "user", "content": "hi"}]}

        async def chat(http: aiohttp.ClientSession) -> int:
            with contextlib.suppress(aiohttp.ClientError):  # a 503 may be lost: the request comes after the end
                async with http.post(f"{base_url}/chat/completions", json=body) as response:
                    return response.status
            return 503

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer sk-test"}) as http:
            async with http.post(f"{base_url}/create", json={**body, "mode": "common_prefix"}) as response:
                body["context_id"] = (await response.json())["id"]
            statuses = await asyncio.gather(*[chat(http) for _ in range(40)])
        assert sorted(statuses) == [200] * 18 + [503] * 22
        await process.communicate(b"")
