"""The load server: `python -m benchmarks.server`, a process of its own. It prints its port and serves until stdin ends.

Raw asyncio protocols and prebuilt bytes: an answer costs it one search in the request and one write, a paced chunk a
call and a write, most of which is the kernel's share of sending. `GET /stats` answers with its own books,
from which `accounting` tells how busy it was; `GET /go` does the same, and lets the gated streams begin.
"""

import asyncio
import json
import os
import re
import resource
import sys
import time
from typing import Any, Final

from . import loads
from .pacer import Pacer

_MODEL: Final = re.compile(rb'"model": ?"(plain|late|whole|hold|paced|gated)-(\d[\d.-]*)"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_NOT_FOUND: Final = loads.answer(b'{"error":{"code":"NotFound","message":"no such load"}}', "404 Not Found")


class Server:
    """What all connections share: the books and the pacer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.accepted = self.open = self.requests = self.streaming = self.chunks = self.blocked = 0
        self.pacer = Pacer(loop, stamped_chunk)
        self.gated: list[tuple[Connection, float]] = []

    def stats(self) -> dict[str, Any]:
        """The books: counts since the start, CPU and clock in seconds."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        names = ("accepted", "open", "requests", "streaming", "chunks", "blocked")
        times = {"cpu": used.ru_utime + used.ru_stime, "clock": time.monotonic(), "late": self.pacer.late}
        return times | {name: getattr(self, name) for name in names}

    def go(self) -> None:
        """Begin all gated streams, their beats spread evenly over the period."""
        gated, self.gated = self.gated, []
        for number, (connection, rate) in enumerate(gated):
            self.pacer.add(connection, rate, number / len(gated))


def stamped_chunk() -> bytes:
    """A framed chunk that says when it was made."""
    before, after = loads.paced_template()
    return b"%b%d%b" % (before, loads.CREATED + time.monotonic_ns() // 1000, after)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.closed = self.paused = self.is_streaming = False
        self.received = b""
        self.left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.accepted += 1
        self.server.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.server.open -= 1
        self._streaming(False)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        found = _LENGTH.search(self.received, 0, end)
        length = int(found[1]) if found else 0
        if len(self.received) >= end + length:
            request, self.received = self.received, b""
            self._answer(request, end)

    def _answer(self, request: bytes, end: int) -> None:
        if request.startswith((b"GET /stats", b"GET /go")):
            if request.startswith(b"GET /go"):
                self.server.go()
            self.transport.write(loads.answer(json.dumps(self.server.stats()).encode()))
            return
        if request.startswith(b"GET "):  # a relay's look whether its upstream is well
            self.transport.write(loads.answer(loads.models()))
            return
        self.server.requests += 1
        if request.startswith(b"POST ") and b"/context/create " in request[:80]:
            self.transport.write(loads.answer(loads.context(self.server.requests)))
            return
        found = _MODEL.search(request, end)
        if found is None or b"/chat/completions " not in request[:80]:
            self.transport.write(_NOT_FOUND)
            return
        kind, numbers = found[1], found[2].decode().split("-")
        if kind == b"plain":
            self.transport.write(loads.plain_answer(int(numbers[0])))
        elif kind == b"late":
            answer = loads.plain_answer(int(numbers[1]))
            asyncio.get_running_loop().call_later(int(numbers[0]) / 1000, self._write_late, answer)
        elif kind == b"whole":
            chunks = int(numbers[0])
            self.server.chunks += chunks
            self.transport.write(loads.whole_answer(chunks, int(numbers[1])))
        elif kind == b"hold":
            self._streaming(True)
            self.transport.write(loads.STREAM_HEAD + loads.stream_text() * int(numbers[0]))
        else:
            self._pace(float(numbers[0]), int(numbers[1]), gated=kind == b"gated")

    def _write_late(self, answer: bytes) -> None:
        if not self.closed:
            self.transport.write(answer)

    def _streaming(self, now: bool) -> None:
        self.server.streaming += now - self.is_streaming
        self.is_streaming = now

    # --- paced streams

    def _pace(self, rate: float, chunks: int, *, gated: bool) -> None:
        self._streaming(True)
        self.left = chunks - 2
        self.transport.write(loads.STREAM_HEAD)
        if gated:
            self.server.gated.append((self, rate))
        else:  # the golden ratio spreads the streams' beats over the period, however many will come
            self.server.pacer.add(self, rate, self.server.requests * 0.618034 % 1)

    def send(self, data: bytes) -> bool:
        """Write one chunk, or at the end the end; return whether there will be more."""
        if self.closed:
            return False
        if self.left <= 0:
            self.transport.write(loads.stream_end())
            self._streaming(False)
            return False
        if self.paused:  # the client does not keep up; what is not sent needs no memory
            self.server.blocked += 1
        else:
            self.transport.write(data)
            self.server.chunks += 1
            self.left -= 1
        return True


async def serve() -> None:
    """Serve on a free port, which is printed, until stdin is closed."""
    raise_file_limit()
    loop = asyncio.get_running_loop()
    server = Server(loop)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.set() if not os.read(sys.stdin.fileno(), 1024) else None)
    await ended.wait()


def raise_file_limit() -> int:
    """Allow as many open files, hence connections, as the machine allows; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> None:
    """Run the server."""
    asyncio.run(serve())


if __name__ == "__main__":
    main()
